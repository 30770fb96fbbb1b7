"""The stages of `bassl`: keyframes to features, features to probabilities, probabilities to scenes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from shared.catalog import BasslParams
from shared.values import VideoFacts
from worker.models.bassl.config import ARCHITECTURE, CROP, KEYFRAMES_PER_SHOT, WINDOWS_PER_BATCH
from worker.models.bassl.network import BaSSL
from worker.models.bassl.weights import load_network
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
from worker.runtime.device import DeviceNetwork, default_batch_size, resolve_precision
from worker.runtime.placement import Placement
from worker.video.keyframes.loader import one_window_per_keyframe
from worker.video.windows import Frames

Floats = npt.NDArray[np.float32]


def plan(_video: VideoFacts, inputs: RunInputs, params: BasslParams, placement: Placement) -> KeyframePlan:
    """Plan each distinct keyframe of the video, once. Keyframe k of shot n has position 3n + k.

    Raises:
        ModelUnavailable: bf16 was requested, and the place computes in fp32.
    """
    resolve_precision(params.precision, placement.precision)
    spans = [row.range for row in inputs.results["shots"] if row.kind == "shot" and row.range]
    keyframes_zip = inputs.files["shots"]["keyframes"]
    return KeyframePlan(keyframes_zip, one_window_per_keyframe(spans), CROP, default_batch_size(placement.device))


def encode(network: DeviceNetwork[BaSSL], frames_BTHWC: Frames, params: BasslParams) -> Floats:
    """Compute the features of keyframes.

    Args:
        network: on its device.
        frames_BTHWC: RGB uint8 (B, 1, 224, 224, 3), as `config.CROP` sees them.
        params: for the precision.

    Returns:
        (B, 1, 2048).
    """
    with network.inference_context(params.precision):
        features_BD = network.network.encode_keyframes(network.normalise_frames(frames_BTHWC))
        features_B1D: Floats = features_BD.float().unsqueeze(1).cpu().numpy()
    return features_B1D


def infer(network: DeviceNetwork[BaSSL], outputs: Sequence[WindowOutput[Floats]], _params: BasslParams) -> SceneScores:
    """Compute the feature of each shot, and the probability that a scene ends with it, always in fp32.

    Args:
        network: on its device.
        outputs: what `encode` gave for the places that `plan` names, in order.
    """
    features_ND = average_keyframes(outputs)
    if not len(features_ND):
        return SceneScores(features_ND, np.empty(0, np.float32))
    with network.inference_context():
        on_device = torch.from_numpy(features_ND).to(network.device)
        probabilities_N = network.network.score_shots(on_device, WINDOWS_PER_BATCH).cpu().numpy()
    return SceneScores(features_ND, probabilities_N)


def postprocess(scores: SceneScores, context: RunContext, params: BasslParams) -> ModelOutput:
    """Group the shots into scenes: a row for each boundary and each scene, and both arrays.

    Args:
        scores: of this run, or loaded from one that differs in the threshold.
        context: with the rows of `shots` among its inputs.
        params: for the threshold.
    """
    return build_scene_output(scores, context, params.threshold)


def average_keyframes(outputs: Sequence[WindowOutput[Floats]]) -> Floats:
    """Average the three keyframes of each shot; equal ones count as often as they occur.

    Args:
        outputs: (1, 2048) each, for the places `start` to `stop`.

    Returns:
        (N, 2048).
    """
    if not outputs:
        return np.empty((0, ARCHITECTURE.features), np.float32)
    values_PD = torch.from_numpy(np.concatenate([output.value for output in outputs]))
    counts_P = torch.tensor([output.stop - output.start for output in outputs])
    keyframes_NKD = values_PD.repeat_interleave(counts_P, dim=0).view(-1, KEYFRAMES_PER_SHOT, values_PD.shape[1])
    features_ND: Floats = keyframes_NKD.mean(dim=1).numpy()
    return features_ND


MODEL = ModelDefinition(
    name="bassl",
    load_network=load_network,
    plan=plan,
    encode=encode,
    open_writer=hold_outputs,
    infer=infer,
    postprocess=postprocess,
    render=render_scenes,
    restore_scores=SceneScores.load_arrays,
)
