"""The stages of `bassl`: keyframes to features, features to probabilities, probabilities to scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from shared.values import Result, TimeRange
from shared.values.scenes import boundaries, scenes
from worker.encoders.placed import Placed
from worker.encoders.scored import Scored
from worker.models.bassl.config import ARCHITECTURE, KEYFRAMES, WINDOWS, BasslParams
from worker.models.bassl.network import BaSSL
from worker.models.contract import Outcome, Piece
from worker.video.feed import Frames
from worker.video.keyframes import Place, apart


def places(shots: Sequence[TimeRange]) -> tuple[Place, ...]:
    """What `encode` is to see: each distinct keyframe of the film, once. Keyframe k of shot n has place 3n + k."""
    return apart(shots)


def encode(network: Placed[BaSSL], frames_BTHWC: Frames, params: BasslParams) -> npt.NDArray[np.float32]:
    """Features of keyframes.

    Args:
        network: in place.
        frames_BTHWC: RGB uint8 (B, 1, 224, 224, 3), as `config.CROP` sees them.
        params: for the precision.

    Returns:
        (B, 1, 2048).
    """
    with network.computing(params.precision):
        features_BD = network.network.features(network.normalised(frames_BTHWC))
        features_B1D: npt.NDArray[np.float32] = features_BD.float().unsqueeze(1).cpu().numpy()
    return features_B1D


def infer(network: Placed[BaSSL], pieces: Sequence[Piece], _params: BasslParams) -> Scored:
    """Feature of each shot, and the probability that a scene ends with it, always in fp32.

    Args:
        network: in place.
        pieces: what `encode` gave for `places`, in order.
    """
    features_ND = of_shots(pieces)
    if not len(features_ND):
        return Scored(features_ND, np.empty(0, np.float32))
    with network.computing():
        on_device = torch.from_numpy(features_ND).to(network.device)
        probabilities_N = network.network.film(on_device, WINDOWS).cpu().numpy()
    return Scored(features_ND, probabilities_N)


def decode(scored: Scored, shots: Sequence[Result], scratch: Path, params: BasslParams) -> Outcome:
    """The probability after each shot, the scenes, and both arrays as files.

    Args:
        scored: of this run, or of a finished one with another threshold.
        shots: rows of kind `shot`, in order.
        scratch: a folder for the files.
        params: for the threshold.
    """
    bounds = boundaries(shots, scored.probabilities_N.tolist())
    return Outcome((*bounds, *scenes(bounds, params.threshold)), scored.keep(scratch))


def of_shots(pieces: Sequence[Piece]) -> npt.NDArray[np.float32]:
    """Feature of each shot: the mean over its three keyframes, equal ones counted as often as they stand there.

    Args:
        pieces: (1, 2048) each, for the places `start` to `stop`.

    Returns:
        (N, 2048).
    """
    if not pieces:
        return np.empty((0, ARCHITECTURE.features), np.float32)
    values_PD = torch.from_numpy(np.concatenate([piece.value for piece in pieces]))
    counts_P = torch.tensor([piece.stop - piece.start for piece in pieces])
    keyframes_NKD = values_PD.repeat_interleave(counts_P, dim=0).unflatten(0, (-1, KEYFRAMES))
    features_ND: npt.NDArray[np.float32] = keyframes_NKD.mean(dim=1).numpy()
    return features_ND
