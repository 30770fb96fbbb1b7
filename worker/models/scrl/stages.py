"""The stages of `scrl`: shots to features, features to probabilities, probabilities to scenes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shared.catalog import ScrlParams
from shared.values import VideoFacts
from worker.models.contract import (
    KeyframePlan,
    ModelDefinition,
    ModelOutput,
    RunContext,
    RunInputs,
    WindowOutput,
    hold_outputs,
)
from worker.models.scene_output import SceneScores, build_scene_output, render_scenes
from worker.models.scrl.config import ARCHITECTURE, CROP, SLIDING_WINDOWS, WINDOWS_PER_BATCH
from worker.models.scrl.network import SCRL, BoundaryNetwork, boundary_probabilities
from worker.models.scrl.weights import load_network
from worker.runtime.device import DeviceNetwork, default_batch_size, resolve_precision
from worker.runtime.placement import Placement
from worker.video.keyframes.loader import one_window_per_shot
from worker.video.windows import Frames

Floats = npt.NDArray[np.float32]


def plan(_video: VideoFacts, inputs: RunInputs, params: ScrlParams, placement: Placement) -> KeyframePlan:
    """Plan the three keyframes of each shot; shot n has position n.

    Raises:
        ModelUnavailable: bf16 was requested, and the place computes in fp32.
    """
    resolve_precision(params.precision, placement.precision)
    spans = [row.range for row in inputs.results["shots"] if row.kind == "shot" and row.range]
    keyframes_zip = inputs.files["shots"]["keyframes"]
    return KeyframePlan(keyframes_zip, one_window_per_shot(len(spans)), CROP, default_batch_size(placement.device))


def encode(network: DeviceNetwork[SCRL], frames_BTHWC: Frames, params: ScrlParams) -> Floats:
    """Compute the features of shots.

    Args:
        network: on its device.
        frames_BTHWC: RGB uint8 (B, 3, 224, 224, 3), as `config.CROP` sees the keyframes of a shot.
        params: for the precision.

    Returns:
        (B, 1, 2048).
    """
    with network.inference_context(params.precision):
        features_BD = network.network.encode_shots(network.normalise_frames(frames_BTHWC))
        features_B1D: Floats = features_BD.float().unsqueeze(1).cpu().numpy()
    return features_B1D


def infer(network: DeviceNetwork[SCRL], outputs: Sequence[WindowOutput[Floats]], _params: ScrlParams) -> SceneScores:
    """Compute the feature of each shot, and the probability that a scene ends with it, always in fp32.

    Args:
        network: on its device.
        outputs: what `encode` gave for the places that `plan` names, in order: (1, 2048) each.
    """
    if not outputs:
        return SceneScores(np.empty((0, ARCHITECTURE.features), np.float32), np.empty(0, np.float32))
    features_ND = np.concatenate([output.value for output in outputs])
    with network.inference_context():
        on_device = torch.from_numpy(features_ND).to(network.device)
        probabilities_N = score_shots(network.network.boundary, on_device).cpu().numpy()
    return SceneScores(features_ND, probabilities_N)


def postprocess(scores: SceneScores, context: RunContext, params: ScrlParams) -> ModelOutput:
    """Group the shots into scenes: a row for each boundary and each scene, and both arrays.

    Args:
        scores: of this run, or loaded from one that differs in the threshold.
        context: with the rows of `shots` among its inputs.
        params: for the threshold.
    """
    return build_scene_output(scores, context, params.threshold)


def score_shots(network: BoundaryNetwork, features_ND: Tensor) -> Tensor:
    """Score each shot by windows of 40 shots, of which the 20 in the middle count.

    The released code has one more window, of the last 20 shots alone. The copies behind the last shot are so many that
    none of that window's values stands for a shot of the video, so it is not computed.

    Args:
        network: the boundary network, in evaluation mode.
        features_ND: of all shots of a video, at least one.

    Returns:
        (N,).
    """
    windows_BLD = pad_shots(features_ND).unfold(0, SLIDING_WINDOWS.length, SLIDING_WINDOWS.step).transpose(1, 2)
    parts = [boundary_probabilities(network(batch_BLD)) for batch_BLD in torch.split(windows_BLD, WINDOWS_PER_BATCH)]
    middle_BL = torch.cat(parts)[:, SLIDING_WINDOWS.lead : SLIDING_WINDOWS.lead + SLIDING_WINDOWS.step]
    return middle_BL.flatten()[: len(features_ND)]


def pad_shots(features_ND: Tensor) -> Tensor:
    """Pad with copies of the first shot in front and of the last behind, up to a multiple of the step."""
    shots = len(features_ND)
    padding_after = SLIDING_WINDOWS.padded_length(shots) - shots - SLIDING_WINDOWS.lead
    first, last = features_ND[:1], features_ND[-1:]
    return torch.cat([first.expand(SLIDING_WINDOWS.lead, -1), features_ND, last.expand(padding_after, -1)])


MODEL = ModelDefinition(
    name="scrl",
    load_network=load_network,
    plan=plan,
    encode=encode,
    open_writer=hold_outputs,
    infer=infer,
    postprocess=postprocess,
    render=render_scenes,
    restore_scores=SceneScores.load_arrays,
)
