"""The stages of `r2plus1d`: clips to features, their means, embeddings."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shared.catalog import R2plus1dParams
from shared.errors import Internal
from shared.values import Embedding, OutputFile, Result, TimeRange, VideoFacts
from worker.models.contract import ClipPlan, ModelDefinition, RunContext, RunInputs, RunOutput, WindowOutput
from worker.models.r2plus1d.clips import make_clips
from worker.models.r2plus1d.config import ARCHITECTURE, CROP
from worker.models.r2plus1d.network import R2Plus1D
from worker.models.r2plus1d.weights import load_network
from worker.runtime.device import IMAGENET_MEAN, IMAGENET_STD, DeviceNetwork, default_batch_size, resolve_precision
from worker.runtime.placement import Placement
from worker.video.transform import View
from worker.video.windows import Frames

Floats = npt.NDArray[np.float32]

EMBEDDING_FILES = {"raw": "embeddings_raw.npy", "l2_normalised": "embeddings_l2.npy"}
"""What yields all vectors of a run: as published, and each divided by its L2 norm. Row n is that of result n."""


def plan(video: VideoFacts, inputs: RunInputs, params: R2plus1dParams, placement: Placement) -> ClipPlan:
    """What `encode` is to see: the clips of the film, or of each of its shots.

    Raises:
        ModelUnavailable: bf16 was asked for, and the place computes in fp32.
    """
    resolve_precision(params.precision, placement.precision)
    whole_video = params.per == "video"
    spans = [(0, video.frames)] if whole_video else [(span.start.frame, span.end.frame) for span in shot_ranges(inputs)]
    return ClipPlan(
        View.full_size(),
        make_clips(spans, params.clips),
        default_batch_size(placement.device),
        CROP.apply_to,
        allow_decord=whole_video,
    )


def encode(network: DeviceNetwork[R2Plus1D], frames_BTHWC: Frames, params: R2plus1dParams) -> Floats:
    """Features of clips.

    Args:
        network: in place.
        frames_BTHWC: RGB uint8 (B, 16, 112, 112, 3), as `config.CROP` sees them.
        params: for the precision.

    Returns:
        (B, 2048).
    """
    with network.inference_context(params.precision):
        features_BD = network.network(normalise_clips(torch.from_numpy(frames_BTHWC).to(network.device)))
        values_BD: Floats = features_BD.float().cpu().numpy()
    return values_BD


def normalise_clips(frames_BTHWC: Tensor) -> Tensor:
    """RGB uint8 -> float32 (B, 3, T, H, W), by the mean and deviation of ImageNet; channels last."""
    mean, std = (torch.tensor(values, device=frames_BTHWC.device) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return frames_BTHWC.float().div_(255).sub_(mean).div_(std).permute(0, 4, 1, 2, 3)


def infer(_network: DeviceNetwork[R2Plus1D], outputs: Sequence[WindowOutput], params: R2plus1dParams) -> Floats:
    """The embedding of the film, or of each shot: the mean over its clips, one that stands for several as often.

    Args:
        outputs: (2048,) each, for the places `start` to `stop`.

    Returns:
        (N, 2048), not normalised.
    """
    if not outputs:
        return np.empty((0, ARCHITECTURE.features), np.float32)
    values_PD = torch.from_numpy(np.stack([output.value for output in outputs]))
    counts_P = torch.tensor([output.stop - output.start for output in outputs])
    clips_NKD = values_PD.repeat_interleave(counts_P, dim=0).view(-1, params.clips, values_PD.shape[1])
    means_ND: Floats = clips_NKD.mean(dim=1).numpy()
    return means_ND


def postprocess(raw_ND: Floats, context: RunContext, params: R2plus1dParams) -> RunOutput:
    """A row for each embedding, the vectors for the search, and two files: raw, and L2-normalised.

    The embedding of a whole film has no range.
    """
    norms_N = np.linalg.norm(raw_ND.astype(np.float64), axis=1)
    whole_video = params.per == "video"
    spans: list[TimeRange | None] = [None] if whole_video else [*shot_ranges(context.inputs)]
    rows, vectors = [], []
    for seq, (span, raw_D, norm) in enumerate(zip(spans, raw_ND, norms_N.tolist(), strict=True)):
        data = {"dimensions": raw_ND.shape[1], "clips": params.clips, "norm": norm, "files": EMBEDDING_FILES}
        rows.append(Result("embedding", seq, span, data=data))
        vectors.append(Embedding(seq, span, array("f", raw_D.tobytes())))
    return RunOutput(tuple(rows), save_embeddings(raw_ND, norms_N, context.scratch), tuple(vectors))


def save_embeddings(raw_ND: Floats, norms_N: npt.NDArray[np.float64], folder: Path) -> tuple[OutputFile, ...]:
    """The vectors as NPY files, float32 (N, 2048) both; what is all zero stays so when it is normalised."""
    unit_ND = (raw_ND / np.where(norms_N > 0, norms_N, 1)[:, None]).astype(np.float32)
    files = []
    for name, array_ND in zip(EMBEDDING_FILES.values(), (raw_ND, unit_ND), strict=True):
        np.save(folder / name, array_ND, allow_pickle=False)
        files.append(OutputFile("embeddings", name, "application/octet-stream", folder / name))
    return tuple(files)


def shot_ranges(inputs: RunInputs) -> list[TimeRange]:
    """Where each shot of the film is, by the run of `shots`. Internal for one without a range."""
    rows = [row for row in inputs.results["shots"] if row.kind == "shot"]
    spans = [row.range for row in rows if row.range]
    if len(spans) != len(rows):
        raise Internal("A shot has no range.")
    return spans


MODEL = ModelDefinition(
    name="r2plus1d", load_network=load_network, plan=plan, encode=encode, infer=infer, postprocess=postprocess
)
