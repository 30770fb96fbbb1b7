"""The four stages of `shots`, and the picker of its keyframes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import assert_never

import numpy as np
import numpy.typing as npt

from shared.catalog import ShotsParams
from shared.values import OutputFile, Shot, VideoFacts
from worker.models.contract import (
    KeyframeSelector,
    ModelDefinition,
    RunContext,
    RunInputs,
    RunOutput,
    VideoPlan,
    WindowOutput,
)
from worker.models.shots.colour import frame_differences
from worker.models.shots.config import ARCHITECTURE, COLOUR_WINDOWS, LEAD_FRAMES, choose_windows
from worker.models.shots.contact_sheet import choose_shots, draw_sheet
from worker.models.shots.segmentation import (
    ColourSegmenter,
    ShotKeyframeSelector,
    ShotSegmenter,
    ShotSpan,
    TransitionSegmenter,
)
from worker.models.shots.weights import Detector, load_network
from worker.runtime.placement import Placement
from worker.video.keyframes.loader import keyframe_name
from worker.video.transform import View
from worker.video.windows import Frames


def plan(_video: VideoFacts, _inputs: RunInputs, params: ShotsParams, placement: Placement) -> VideoPlan:
    """Small RGB pictures for the network, every f-th pixel in BGR for the colour rule."""
    short_side = params.keyframe_short_side
    match params.detector:
        case "transnetv2":
            view = View.scaled_to(ARCHITECTURE.width, ARCHITECTURE.height)
            return VideoPlan(
                view, choose_windows(placement), batch_size=_batch_size(placement), keyframe_short_side=short_side
            )
        case "hsv_luv":
            return VideoPlan(View.subsampled_bgr(), COLOUR_WINDOWS, keyframe_short_side=short_side)
        case _:
            assert_never(params.detector)


def encode(network: Detector | None, frames_BTHWC: Frames, _params: ShotsParams) -> npt.NDArray[np.float32]:
    """Scores for the frames that the windows answer for.

    Args:
        network: TransNet V2; None for `hsv_luv`.
        frames_BTHWC: uint8, windows as planned.

    Returns:
        (B, step) probabilities of a transition, or (B, step, 2) colour differences d_hsv and d_luv.
    """
    if network is None:
        return np.stack([frame_differences(frames_THWC) for frames_THWC in frames_BTHWC])
    return network(frames_BTHWC)[:, LEAD_FRAMES:-LEAD_FRAMES]


def infer(_network: Detector | None, outputs: Sequence[WindowOutput], params: ShotsParams) -> list[ShotSpan]:
    """The shots, in frames."""
    segmenter = _make_segmenter(params)
    spans = [span for output in outputs for span in segmenter.add_scores(output.value)]
    return spans + segmenter.finish()


def postprocess(spans: Sequence[ShotSpan], context: RunContext, _params: ShotsParams) -> RunOutput:
    """Shots with exact times, their keyframes and a contact sheet. A film without frames yields nothing."""
    shots = [Shot(context.timeline.time_range(span.start, span.end), span.transition, span.score) for span in spans]
    results = tuple(shot.to_result(seq) for seq, shot in enumerate(shots))
    if context.keyframes_zip is None or not shots:
        return RunOutput(results)
    sheet = _draw_contact_sheet(shots, context.keyframes_zip, context.scratch / "contact_sheet.jpg")
    return RunOutput(
        results,
        (
            OutputFile("keyframes", "keyframes.zip", "application/zip", context.keyframes_zip),
            OutputFile("contact_sheet", "contact_sheet.jpg", "image/jpeg", sheet),
        ),
    )


def make_keyframe_selector(params: ShotsParams) -> KeyframeSelector:
    """Names the keyframes while the film is read, by the same decisions as `infer`."""
    return ShotKeyframeSelector(_make_segmenter(params))


def _make_segmenter(params: ShotsParams) -> ShotSegmenter:
    factories: dict[str, Callable[[], ShotSegmenter]] = {
        "transnetv2": lambda: TransitionSegmenter(params.threshold),
        "hsv_luv": lambda: ColourSegmenter(params.min_shot_frames),
    }
    return factories[params.detector]()


def _batch_size(placement: Placement) -> int:
    """Windows at a time: a CPU is as fast with one, and reports sooner."""
    return 1 if placement.device == "cpu" else 16


def _draw_contact_sheet(shots: Sequence[Shot], keyframes_zip: Path, target: Path) -> Path:
    cells = [
        (keyframe_name(shot, 1), f"{shot + 1}", shots[shot].range.start.timecode) for shot in choose_shots(len(shots))
    ]
    return draw_sheet(keyframes_zip, cells, target)


MODEL = ModelDefinition(
    name="shots",
    load_network=load_network,
    plan=plan,
    encode=encode,
    infer=infer,
    postprocess=postprocess,
    make_keyframe_selector=make_keyframe_selector,
)
