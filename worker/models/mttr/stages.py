"""The stages of `mttr`: windows to answers, answers to tracks, tracks to files."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from shared.catalog import MttrParams
from shared.errors import Internal
from shared.values import VideoFacts
from worker.models.contract import ModelDefinition, RunContext, RunInputs, RunOutput, VideoPlan, WindowOutput
from worker.models.mttr.config import CPU_FRAMES_PER_STEP, WINDOWS
from worker.models.mttr.grounding import Grounding
from worker.models.mttr.network import MTTR, Prediction, VideoBatch, VideoFeatures
from worker.models.mttr.resize import Resize
from worker.models.mttr.tracks.render import render_tracks
from worker.models.mttr.tracks.summary import Track, build_tracks
from worker.models.mttr.tracks.writer import TrackWriter
from worker.models.mttr.weights import load_network
from worker.models.mttr.window_prediction import WindowPrediction
from worker.runtime.device import IMAGENET_MEAN, IMAGENET_STD, DeviceNetwork, resolve_precision
from worker.runtime.placement import Placement
from worker.video.transform import View
from worker.video.windows import Frames


def plan(_video: VideoFacts, _inputs: RunInputs, params: MttrParams, placement: Placement) -> VideoPlan:
    """Windows of the part that was asked for, one at a time, resized in the thread that decodes.

    Raises:
        ModelUnavailable: bf16 was asked for, and the place computes in fp32.
    """
    resolve_precision(params.precision, placement.precision)
    return VideoPlan(
        View.full_size(),
        WINDOWS,
        preprocess=Resize(params.short_side).resize_frame,
        start_time=to_seconds(params.start_s),
        end_time=None if params.end_s is None else to_seconds(params.end_s),
    )


def to_seconds(value: float) -> Fraction:
    """The decimal number that was meant: 0.04 is the time of frame 1 at 25 a second, and no later."""
    return Fraction(repr(value))


def encode(network: Grounding, frames_BTHWC: Frames, params: MttrParams) -> list[tuple[WindowPrediction, ...]]:
    """What the network says of windows: an answer for each query.

    Args:
        network: in place.
        frames_BTHWC: RGB uint8 (B, T, H, W, 3), as `Resize` sees them; T is less than 24 at the end of a film.
        params: for the queries and the precision.

    Raises:
        InvalidRequest: a query has more tokens than the network has positions for.
    """
    words = [network.encode_query(query) for query in params.queries]
    with network.device_network.inference_context(params.precision):
        return [
            predict_window(network.device_network, torch.from_numpy(frames_THWC), words) for frames_THWC in frames_BTHWC
        ]


def predict_window(
    device_network: DeviceNetwork[MTTR], frames_THWC: Tensor, words: Sequence[Tensor]
) -> tuple[WindowPrediction, ...]:
    """One window: seen once, then asked about each query by itself, so that memory holds the work of one."""
    height, width = frames_THWC.shape[1:3]
    features = device_network.network.encode_videos(VideoBatch(normalise_window(frames_THWC.to(device_network.device))))
    frames_per_step = CPU_FRAMES_PER_STEP if device_network.device.type == "cpu" else len(frames_THWC)
    return tuple(
        predict_query(device_network.network, features, words_1LC, (height, width), frames_per_step)
        for words_1LC in words
    )


def predict_query(
    network: MTTR, features: VideoFeatures, words_1LC: Tensor, size: tuple[int, int], frames_per_step: int
) -> WindowPrediction:
    """One window and one query; `size` is that of the frames, `frames_per_step` how many of them go at a time."""
    parts = [
        last_layer_outputs(network.predict_instances(part, words_1LC))
        for part in features.split_frames(frames_per_step)
    ]
    referred_TN, kernels_TNK, features_TKhw = (
        torch.cat(tensors).contiguous().cpu().numpy() for tensors in zip(*parts, strict=True)
    )
    return WindowPrediction(referred_TN, kernels_TNK, features_TKhw, *size)


def last_layer_outputs(prediction: Prediction) -> tuple[Tensor, Tensor, Tensor]:
    """After the last layer, in float32: the probability of each instance, its kernels, the features of the pixels."""
    referred_NQ = prediction.referred_DNQ2[-1].softmax(dim=-1)[..., 0]
    return referred_NQ, prediction.kernels_DNQK[-1], prediction.features_NKhw.float()


def normalise_window(frames_THWC: Tensor) -> Tensor:
    """RGB uint8 -> float32 (T, 1, 3, H, W), by the mean and deviation of ImageNet; channels last."""
    mean, std = (torch.tensor(values, device=frames_THWC.device) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return frames_THWC.float().div_(255).sub_(mean).div_(std).permute(0, 3, 1, 2)[:, None]


def infer(_network: Grounding, outputs: Sequence[WindowOutput], _params: MttrParams) -> tuple[Track, ...]:
    """A track for each query.

    Args:
        outputs: as the writer gave them back.
    """
    return build_tracks(outputs)


def postprocess(tracks: Sequence[Track], context: RunContext, params: MttrParams) -> RunOutput:
    """A row for each query, and the files. A film without frames yields nothing.

    Args:
        build_tracks: of this run.
        context: with what the writer wrote in its scratch folder.
        params: for the queries and the files that are wanted.
    """
    if context.first_frame == context.stop_frame:
        return RunOutput()
    if len(tracks) != len(params.queries):
        raise Internal("The tracks are not those of the queries.")
    span = context.timeline.time_range(context.first_frame, context.stop_frame)
    rows = (
        track.to_result(seq, query, span) for seq, (track, query) in enumerate(zip(tracks, params.queries, strict=True))
    )
    return RunOutput(tuple(rows), render_tracks(context, params))


MODEL = ModelDefinition(
    name="mttr",
    load_network=load_network,
    plan=plan,
    encode=encode,
    infer=infer,
    postprocess=postprocess,
    open_writer=TrackWriter,
)
