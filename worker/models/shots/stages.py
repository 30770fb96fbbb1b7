"""The stages of `shots`, and its keyframe selector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import assert_never

import numpy as np
import numpy.typing as npt

from shared.catalog import ShotsParams
from shared.errors import Internal
from shared.values import OutputFile, Result, Shot, VideoFacts
from worker.models.contract import (
    KeyframeSelector,
    ModelDefinition,
    ModelOutput,
    ProgressCallback,
    RenderContext,
    RunContext,
    RunInputs,
    VideoPlan,
    WindowOutput,
    hold_outputs,
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

Floats = npt.NDArray[np.float32]


def plan(_video: VideoFacts, _inputs: RunInputs, params: ShotsParams, placement: Placement) -> VideoPlan:
    """Plan small RGB frames for the network, every f-th pixel in BGR for the colour rule."""
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


def encode(network: Detector | None, frames_BTHWC: Frames, _params: ShotsParams) -> Floats:
    """Compute the scores of the frames that the windows stand for.

    Args:
        network: TransNet V2; None for `hsv_luv`.
        frames_BTHWC: uint8, windows as planned.

    Returns:
        (B, step) probabilities of a transition, or (B, step, 2) colour differences d_hsv and d_luv.
    """
    if network is None:
        return np.stack([frame_differences(frames_THWC) for frames_THWC in frames_BTHWC])
    return network(frames_BTHWC)[:, LEAD_FRAMES:-LEAD_FRAMES]


def infer(_network: Detector | None, outputs: Sequence[WindowOutput[Floats]], params: ShotsParams) -> list[ShotSpan]:
    """Find the shots, in frames."""
    segmenter = _make_segmenter(params)
    spans = [span for output in outputs for span in segmenter.add_scores(output.value)]
    return spans + segmenter.finish()


def postprocess(spans: Sequence[ShotSpan], context: RunContext, _params: ShotsParams) -> ModelOutput:
    """Build a row with exact times for each shot."""
    shots = [Shot(context.timeline.time_range(span.start, span.end), span.transition, span.score) for span in spans]
    return ModelOutput(tuple(shot.to_result(seq) for seq, shot in enumerate(shots)))


def render(
    results: Sequence[Result], context: RenderContext, _params: ShotsParams, _report_progress: ProgressCallback
) -> tuple[OutputFile, ...]:
    """Draw the contact sheet, and hand on the keyframes. A video without frames yields nothing."""
    if context.keyframes_zip is None or not results:
        return ()
    sheet = _draw_contact_sheet(results, context.keyframes_zip, context.scratch / "contact_sheet.jpg")
    return (
        OutputFile("keyframes", "keyframes.zip", "application/zip", context.keyframes_zip),
        OutputFile("contact_sheet", "contact_sheet.jpg", "image/jpeg", sheet),
    )


def make_keyframe_selector(params: ShotsParams) -> KeyframeSelector[Floats]:
    """Make the selector that names the keyframes while the video is read, by the same decisions as `infer`."""
    return ShotKeyframeSelector(_make_segmenter(params))


def _make_segmenter(params: ShotsParams) -> ShotSegmenter:
    factories: dict[str, Callable[[], ShotSegmenter]] = {
        "transnetv2": lambda: TransitionSegmenter(params.threshold),
        "hsv_luv": lambda: ColourSegmenter(params.min_shot_frames),
    }
    return factories[params.detector]()


def _batch_size(placement: Placement) -> int:
    """Windows in a batch: a CPU is as fast with one, and reports progress sooner."""
    return 1 if placement.device == "cpu" else 16


def _draw_contact_sheet(shots: Sequence[Result], keyframes_zip: Path, target: Path) -> Path:
    cells = [(keyframe_name(shot, 1), f"{shot + 1}", _timecode(shots[shot])) for shot in choose_shots(len(shots))]
    return draw_sheet(keyframes_zip, cells, target)


def _timecode(shot: Result) -> str:
    if shot.range is None:
        raise Internal("A shot has no range.")
    return shot.range.start.timecode


MODEL = ModelDefinition(
    name="shots",
    load_network=load_network,
    plan=plan,
    encode=encode,
    open_writer=hold_outputs,
    infer=infer,
    postprocess=postprocess,
    render=render,
    make_keyframe_selector=make_keyframe_selector,
)
