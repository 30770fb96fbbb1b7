"""The stages of `r2plus1d`: clips to features, features to their mean, means to embeddings."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shared.catalog import R2plus1dParams
from shared.errors import Internal
from shared.values import Embedding, Result, TimeRange, VideoFacts
from worker.models.contract import (
    ArrayOutput,
    ClipPlan,
    ModelDefinition,
    ModelOutput,
    RunContext,
    RunInputs,
    WindowOutput,
    hold_outputs,
)
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
"""Files with all vectors of a run: as published, and each divided by its L2 norm. Row n belongs to result n."""


def plan(video: VideoFacts, inputs: RunInputs, params: R2plus1dParams, placement: Placement) -> ClipPlan:
    """Plan the clips of the video, or of each of its shots.

    Raises:
        ModelUnavailable: bf16 was requested, and the placement computes in fp32.
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
    """Compute the features of clips.

    Args:
        network: on its device.
        frames_BTHWC: RGB uint8 (B, 16, 112, 112, 3), cropped by `config.CROP`.
        params: for the precision.

    Returns:
        (B, 2048).
    """
    with network.inference_context(params.precision):
        features_BD = network.network(normalise_clips(torch.from_numpy(frames_BTHWC).to(network.device)))
        values_BD: Floats = features_BD.float().cpu().numpy()
    return values_BD


def normalise_clips(frames_BTHWC: Tensor) -> Tensor:
    """Normalise RGB uint8 to float32 (B, 3, T, H, W) by mean and deviation of ImageNet; channels last in memory."""
    mean, std = (torch.tensor(values, device=frames_BTHWC.device) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return frames_BTHWC.float().div_(255).sub_(mean).div_(std).permute(0, 4, 1, 2, 3)


def infer(_network: DeviceNetwork[R2Plus1D], outputs: Sequence[WindowOutput[Floats]], params: R2plus1dParams) -> Floats:
    """Average the clips of the video, or of each shot; a clip that stands for several positions counts as often.

    Args:
        outputs: (2048,) each, for the positions `start` to `stop`.

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


def postprocess(raw_ND: Floats, context: RunContext, params: R2plus1dParams) -> ModelOutput:
    """Build a row and a vector for each embedding, and two arrays: raw, and L2-normalised.

    The embedding of a whole video has no range.
    """
    norms_N = np.linalg.norm(raw_ND.astype(np.float64), axis=1)
    whole_video = params.per == "video"
    spans: list[TimeRange | None] = [None] if whole_video else [*shot_ranges(context.inputs)]
    rows, vectors = [], []
    for seq, (span, raw_D, norm) in enumerate(zip(spans, raw_ND, norms_N.tolist(), strict=True)):
        data = {"dimensions": raw_ND.shape[1], "clips": params.clips, "norm": norm, "files": EMBEDDING_FILES}
        rows.append(Result("embedding", seq, span, data=data))
        vectors.append(Embedding(seq, span, array("f", raw_D.tobytes())))
    return ModelOutput(tuple(rows), build_arrays(raw_ND, norms_N), tuple(vectors))


def build_arrays(raw_ND: Floats, norms_N: npt.NDArray[np.float64]) -> tuple[ArrayOutput, ...]:
    """Build the arrays of both files, float32 (N, 2048) each; a vector of zeros stays one when it is normalised."""
    unit_ND = (raw_ND / np.where(norms_N > 0, norms_N, 1)[:, None]).astype(np.float32)
    pairs = zip(EMBEDDING_FILES.values(), (raw_ND, unit_ND), strict=True)
    return tuple(ArrayOutput("embeddings", name, {"vectors": array_ND}) for name, array_ND in pairs)


def shot_ranges(inputs: RunInputs) -> list[TimeRange]:
    """Get the range of each shot from the rows of `shots`; Internal for a shot without one."""
    rows = [row for row in inputs.results["shots"] if row.kind == "shot"]
    spans = [row.range for row in rows if row.range]
    if len(spans) != len(rows):
        raise Internal("A shot has no range.")
    return spans


MODEL = ModelDefinition(
    name="r2plus1d",
    load_network=load_network,
    plan=plan,
    encode=encode,
    open_writer=hold_outputs,
    infer=infer,
    postprocess=postprocess,
)
