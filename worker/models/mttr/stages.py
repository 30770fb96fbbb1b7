"""The stages of `mttr`: windows to predictions, predictions to tracks, tracks to rows and files."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from shared.catalog import MttrParams
from shared.errors import Internal
from shared.values import VideoFacts
from worker.models.contract import ModelDefinition, ModelOutput, RunContext, RunInputs, VideoPlan, WindowOutput
from worker.models.mttr.config import CPU_FRAMES_PER_STEP, WINDOWS
from worker.models.mttr.grounding import Grounding
from worker.models.mttr.network import MTTR, Prediction, VideoBatch, VideoFeatures
from worker.models.mttr.resize import Resize
from worker.models.mttr.tracks.render import render_tracks
from worker.models.mttr.tracks.summary import Track, build_tracks
from worker.models.mttr.tracks.window_prediction import WindowPrediction
from worker.models.mttr.tracks.writer import TrackWriter, WindowTracks
from worker.models.mttr.weights import load_network
from worker.runtime.device import IMAGENET_MEAN, IMAGENET_STD, DeviceNetwork, resolve_precision
from worker.runtime.placement import Placement
from worker.video.transform import View
from worker.video.windows import Frames


def plan(_video: VideoFacts, _inputs: RunInputs, params: MttrParams, placement: Placement) -> VideoPlan:
    """Plan the windows of the requested part, one at a time; frames are resized in the thread that decodes.

    Raises:
        ModelUnavailable: bf16 was requested, and the placement computes in fp32.
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
    """Convert a float to the decimal number that it was written as.

    So 0.04 is exactly the time of frame 1 at 25 frames a second; the nearest binary number would lie behind it.
    """
    return Fraction(repr(value))


def encode(network: Grounding, frames_BTHWC: Frames, params: MttrParams) -> list[Sequence[WindowPrediction]]:
    """Predict masks for windows: one prediction for each query.

    Args:
        network: on its device, with its tokenizer.
        frames_BTHWC: RGB uint8 (B, T, H, W, 3), resized by `Resize`; T is less than 24 at the end of a video.
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
    """Predict one window: frames are encoded once, queries one by one, so memory holds the work of one query."""
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
    """Predict one window for one query; `size` is (height, width) of the frames, `frames_per_step` go at a time."""
    parts = [
        last_layer_outputs(network.predict_instances(part, words_1LC))
        for part in features.split_frames(frames_per_step)
    ]
    referred_TN, kernels_TNK, features_TKhw = (
        torch.cat(tensors).contiguous().cpu().numpy() for tensors in zip(*parts, strict=True)
    )
    return WindowPrediction(referred_TN, kernels_TNK, features_TKhw, *size)


def last_layer_outputs(prediction: Prediction) -> tuple[Tensor, Tensor, Tensor]:
    """Get the last layer's outputs in float32: probability of each instance, its kernels, features of the pixels."""
    referred_NQ = prediction.referred_DNQ2[-1].softmax(dim=-1)[..., 0]
    return referred_NQ, prediction.kernels_DNQK[-1], prediction.features_NKhw.float()


def normalise_window(frames_THWC: Tensor) -> Tensor:
    """Normalise RGB uint8 to float32 (T, 1, 3, H, W) by mean and deviation of ImageNet; channels last in memory."""
    mean, std = (torch.tensor(values, device=frames_THWC.device) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return frames_THWC.float().div_(255).sub_(mean).div_(std).permute(0, 3, 1, 2)[:, None]


def infer(_network: Grounding, outputs: Sequence[WindowOutput[WindowTracks]], _params: MttrParams) -> tuple[Track, ...]:
    """Build a track for each query.

    Args:
        outputs: as the writer holds them.
    """
    return build_tracks(outputs)


def postprocess(tracks: Sequence[Track], context: RunContext, params: MttrParams) -> ModelOutput:
    """Build a row for each query; none for a video without frames.

    Args:
        tracks: of this run.
        context: with the frames that were read.
        params: for the queries.
    """
    if context.first_frame == context.stop_frame:
        return ModelOutput()
    if len(tracks) != len(params.queries):
        raise Internal("The tracks are not those of the queries.")
    span = context.timeline.time_range(context.first_frame, context.stop_frame)
    rows = (
        track.to_result(seq, query, span) for seq, (track, query) in enumerate(zip(tracks, params.queries, strict=True))
    )
    return ModelOutput(tuple(rows))


MODEL = ModelDefinition(
    name="mttr",
    load_network=load_network,
    plan=plan,
    encode=encode,
    open_writer=TrackWriter,
    infer=infer,
    postprocess=postprocess,
    render=render_tracks,
)
