"""The stages of `bassl`: keyframes to features, features to probabilities, probabilities to scenes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from shared.catalog import BasslParams
from shared.values import Video
from worker.encoders.placed import Placed, batch, settled
from worker.encoders.scored import Scored, told
from worker.models.bassl.config import ARCHITECTURE, CROP, KEYFRAMES, WINDOWS
from worker.models.bassl.network import BaSSL
from worker.models.bassl.weights import load
from worker.models.contract import Film, Inputs, Outcome, PicturePlan, Piece, Room
from worker.models.placement import Placement
from worker.video.feed import Frames
from worker.video.pictures.keyframes import apart


def plan(_video: Video, inputs: Inputs, params: BasslParams, placement: Placement) -> PicturePlan:
    """What `encode` is to see: each distinct keyframe of the film, once. Keyframe k of shot n has place 3n + k.

    Raises:
        ModelUnavailable: bf16 was asked for, and the place computes in fp32.
    """
    settled(params.precision, placement.precision)
    spans = [row.range for row in inputs.results["shots"] if row.kind == "shot" and row.range]
    archive = inputs.files["shots"]["keyframes"]
    return PicturePlan(archive, apart(spans), CROP, batch(placement.device))


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
        pieces: what `encode` gave for the places that `plan` names, in order.
    """
    features_ND = of_shots(pieces)
    if not len(features_ND):
        return Scored(features_ND, np.empty(0, np.float32))
    with network.computing():
        on_device = torch.from_numpy(features_ND).to(network.device)
        probabilities_N = network.network.film(on_device, WINDOWS).cpu().numpy()
    return Scored(features_ND, probabilities_N)


def decode(scored: Scored, film: Film, params: BasslParams) -> Outcome:
    """The probability after each shot, the scenes, both arrays as files, and on request each scene as a clip.

    Args:
        scored: of this run, or recalled from one that differs in the threshold.
        film: with the rows of `shots` among its inputs.
        params: for the threshold.
    """
    rows = film.inputs.results["shots"]
    return Outcome(*told(scored, rows, params, params.threshold, film.path, film.video, film.scratch))


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
    keyframes_NKD = values_PD.repeat_interleave(counts_P, dim=0).view(-1, KEYFRAMES, values_PD.shape[1])
    features_ND: npt.NDArray[np.float32] = keyframes_NKD.mean(dim=1).numpy()
    return features_ND


ROOM = Room(name="bassl", load=load, plan=plan, encode=encode, infer=infer, decode=decode, recall=Scored.read)
