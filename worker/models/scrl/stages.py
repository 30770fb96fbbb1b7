"""The stages of `scrl`: shots to features, features to probabilities, probabilities to scenes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shared.catalog import ScrlParams
from shared.values import Video
from worker.encoders.placed import Placed, batch, settled
from worker.encoders.scored import Scored, told
from worker.models.contract import Film, Inputs, Outcome, PicturePlan, Piece, Room
from worker.models.placement import Placement
from worker.models.scrl.config import ARCHITECTURE, CROP, SLIDING, WINDOWS
from worker.models.scrl.network import SCRL, BoundaryNetwork, probabilities
from worker.models.scrl.weights import load
from worker.video.feed import Frames
from worker.video.pictures.keyframes import together


def plan(_video: Video, inputs: Inputs, params: ScrlParams, placement: Placement) -> PicturePlan:
    """What `encode` is to see: the three keyframes of each shot; shot n has place n.

    Raises:
        ModelUnavailable: bf16 was asked for, and the place computes in fp32.
    """
    settled(params.precision, placement.precision)
    spans = [row.range for row in inputs.results["shots"] if row.kind == "shot" and row.range]
    archive = inputs.files["shots"]["keyframes"]
    return PicturePlan(archive, together(len(spans)), CROP, batch(placement.device))


def encode(network: Placed[SCRL], frames_BTHWC: Frames, params: ScrlParams) -> npt.NDArray[np.float32]:
    """Features of shots.

    Args:
        network: in place.
        frames_BTHWC: RGB uint8 (B, 3, 224, 224, 3), as `config.CROP` sees the keyframes of a shot.
        params: for the precision.

    Returns:
        (B, 1, 2048).
    """
    with network.computing(params.precision):
        features_BD = network.network.features(network.normalised(frames_BTHWC))
        features_B1D: npt.NDArray[np.float32] = features_BD.float().unsqueeze(1).cpu().numpy()
    return features_B1D


def infer(network: Placed[SCRL], pieces: Sequence[Piece], _params: ScrlParams) -> Scored:
    """Feature of each shot, and the probability that a scene ends with it, always in fp32.

    Args:
        network: in place.
        pieces: what `encode` gave for the places that `plan` names, in order: (1, 2048) each.
    """
    if not pieces:
        return Scored(np.empty((0, ARCHITECTURE.features), np.float32), np.empty(0, np.float32))
    features_ND = np.concatenate([piece.value for piece in pieces])
    with network.computing():
        on_device = torch.from_numpy(features_ND).to(network.device)
        probabilities_N = slid(network.network.boundary, on_device).cpu().numpy()
    return Scored(features_ND, probabilities_N)


def decode(scored: Scored, film: Film, params: ScrlParams) -> Outcome:
    """The probability after each shot, the scenes, both arrays as files, and on request each scene as a clip.

    Args:
        scored: of this run, or recalled from one that differs in the threshold.
        film: with the rows of `shots` among its inputs.
        params: for the threshold.
    """
    rows = film.inputs.results["shots"]
    return Outcome(*told(scored, rows, params, params.threshold, film.path, film.video, film.scratch))


def slid(network: BoundaryNetwork, features_ND: Tensor) -> Tensor:
    """Probability after each shot, by windows of 40 shots of which the 20 in the middle count.

    The released code has one more window, of the last 20 shots alone. The copies behind the last shot are so many that
    none of that window's values stands for a shot of the film, so it is not computed.

    Args:
        network: the boundary network, in evaluation mode.
        features_ND: of all shots of a film, at least one.

    Returns:
        (N,).
    """
    windows_BLD = padded(features_ND).unfold(0, SLIDING.length, SLIDING.step).transpose(1, 2)
    parts = [probabilities(network(some_BLD)) for some_BLD in torch.split(windows_BLD, WINDOWS)]
    middle_BL = torch.cat(parts)[:, SLIDING.lead : SLIDING.lead + SLIDING.step]
    return middle_BL.flatten()[: len(features_ND)]


def padded(features_ND: Tensor) -> Tensor:
    """With copies of the first shot in front and of the last behind, up to a multiple of the step."""
    shots = len(features_ND)
    behind = SLIDING.padded(shots) - shots - SLIDING.lead
    first, last = features_ND[:1], features_ND[-1:]
    return torch.cat([first.expand(SLIDING.lead, -1), features_ND, last.expand(behind, -1)])


ROOM = Room(name="scrl", load=load, plan=plan, encode=encode, infer=infer, decode=decode, recall=Scored.read)
