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
from shared.values import Embedding, FileMade, Result, TimeRange, Video
from worker.encoders.placed import MEAN, STD, Placed, batch, settled
from worker.models.contract import ClipPlan, Film, Inputs, Outcome, Piece, Room
from worker.models.placement import Placement
from worker.models.r2plus1d.clips import clips_of
from worker.models.r2plus1d.config import ARCHITECTURE, CROP
from worker.models.r2plus1d.network import R2Plus1D
from worker.models.r2plus1d.weights import load
from worker.video.feed import Frames
from worker.video.transform import View

Floats = npt.NDArray[np.float32]

FILES = {"raw": "embeddings_raw.npy", "l2_normalised": "embeddings_l2.npy"}
"""What yields all vectors of a run: as published, and each divided by its L2 norm. Row n is that of result n."""


def plan(video: Video, inputs: Inputs, params: R2plus1dParams, placement: Placement) -> ClipPlan:
    """What `encode` is to see: the clips of the film, or of each of its shots.

    Raises:
        ModelUnavailable: bf16 was asked for, and the place computes in fp32.
    """
    settled(params.precision, placement.precision)
    whole = params.per == "video"
    spans = [(0, video.frames)] if whole else [(span.start.frame, span.end.frame) for span in shots_of(inputs)]
    return ClipPlan(View.full(), clips_of(spans, params.clips), batch(placement.device), CROP.see, decord=whole)


def encode(network: Placed[R2Plus1D], frames_BTHWC: Frames, params: R2plus1dParams) -> Floats:
    """Features of clips.

    Args:
        network: in place.
        frames_BTHWC: RGB uint8 (B, 16, 112, 112, 3), as `config.CROP` sees them.
        params: for the precision.

    Returns:
        (B, 2048).
    """
    with network.computing(params.precision):
        features_BD = network.network(normalised(torch.from_numpy(frames_BTHWC).to(network.device)))
        values_BD: Floats = features_BD.float().cpu().numpy()
    return values_BD


def normalised(frames_BTHWC: Tensor) -> Tensor:
    """RGB uint8 -> float32 (B, 3, T, H, W), by the mean and deviation of ImageNet; channels last."""
    mean, std = (torch.tensor(values, device=frames_BTHWC.device) for values in (MEAN, STD))
    return frames_BTHWC.float().div_(255).sub_(mean).div_(std).permute(0, 4, 1, 2, 3)


def infer(_network: Placed[R2Plus1D], pieces: Sequence[Piece], params: R2plus1dParams) -> Floats:
    """The embedding of the film, or of each shot: the mean over its clips, one that stands for several as often.

    Args:
        pieces: (2048,) each, for the places `start` to `stop`.

    Returns:
        (N, 2048), not normalised.
    """
    if not pieces:
        return np.empty((0, ARCHITECTURE.features), np.float32)
    values_PD = torch.from_numpy(np.stack([piece.value for piece in pieces]))
    counts_P = torch.tensor([piece.stop - piece.start for piece in pieces])
    clips_NKD = values_PD.repeat_interleave(counts_P, dim=0).view(-1, params.clips, values_PD.shape[1])
    means_ND: Floats = clips_NKD.mean(dim=1).numpy()
    return means_ND


def decode(raw_ND: Floats, film: Film, params: R2plus1dParams) -> Outcome:
    """A row for each embedding, the vectors for the search, and two files: raw, and L2-normalised.

    The embedding of a whole film has no range.
    """
    norms_N = np.linalg.norm(raw_ND.astype(np.float64), axis=1)
    whole = params.per == "video"
    spans: list[TimeRange | None] = [None] if whole else [*shots_of(film.inputs)]
    rows, vectors = [], []
    for seq, (span, raw_D, norm) in enumerate(zip(spans, raw_ND, norms_N.tolist(), strict=True)):
        data = {"dimensions": raw_ND.shape[1], "clips": params.clips, "norm": norm, "files": FILES}
        rows.append(Result("embedding", seq, span, data=data))
        vectors.append(Embedding(seq, span, array("f", raw_D.tobytes())))
    return Outcome(tuple(rows), keep(raw_ND, norms_N, film.scratch), tuple(vectors))


def keep(raw_ND: Floats, norms_N: npt.NDArray[np.float64], folder: Path) -> tuple[FileMade, ...]:
    """The vectors as NPY files, float32 (N, 2048) both; what is all zero stays so when it is normalised."""
    unit_ND = (raw_ND / np.where(norms_N > 0, norms_N, 1)[:, None]).astype(np.float32)
    files = []
    for name, array_ND in zip(FILES.values(), (raw_ND, unit_ND), strict=True):
        np.save(folder / name, array_ND, allow_pickle=False)
        files.append(FileMade("embeddings", name, "application/octet-stream", folder / name))
    return tuple(files)


def shots_of(inputs: Inputs) -> list[TimeRange]:
    """Where each shot of the film is, by the run of `shots`. Internal for one without a range."""
    rows = [row for row in inputs.results["shots"] if row.kind == "shot"]
    spans = [row.range for row in rows if row.range]
    if len(spans) != len(rows):
        raise Internal("A shot has no range.")
    return spans


ROOM = Room(name="r2plus1d", load=load, plan=plan, encode=encode, infer=infer, decode=decode)
