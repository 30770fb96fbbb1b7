"""The four stages of `shots`, and the picker of its keyframes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import assert_never

import numpy as np
import numpy.typing as npt

from shared.catalog import ShotsParams
from shared.values import FileMade, Shot, Video
from worker.models.contract import Film, FilmPlan, Inputs, Outcome, Picker, Piece, Room
from worker.models.placement import Placement
from worker.models.shots.colour import differences
from worker.models.shots.config import ARCHITECTURE, COLOUR_WINDOWS, LEAD, windows
from worker.models.shots.cuts import ColourCuts, Cutter, Keyframes, Span, Transitions
from worker.models.shots.sheet import chosen, draw
from worker.models.shots.weights import Detector, load
from worker.video.feed import Frames
from worker.video.pictures.keyframes import name
from worker.video.transform import View


def plan(_video: Video, _inputs: Inputs, params: ShotsParams, placement: Placement) -> FilmPlan:
    """Small RGB pictures for the network, every f-th pixel in BGR for the colour rule."""
    side = params.keyframe_short_side
    match params.detector:
        case "transnetv2":
            view = View.scaled(ARCHITECTURE.width, ARCHITECTURE.height)
            return FilmPlan(view, windows(placement), batch=_batch(placement), keyframe_short_side=side)
        case "hsv_luv":
            return FilmPlan(View.subsampled(), COLOUR_WINDOWS, keyframe_short_side=side)
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
        return np.stack([differences(frames_THWC) for frames_THWC in frames_BTHWC])
    return network(frames_BTHWC)[:, LEAD:-LEAD]


def infer(_network: Detector | None, pieces: Sequence[Piece], params: ShotsParams) -> list[Span]:
    """The shots, in frames."""
    cutter = _cutter(params)
    spans = [span for piece in pieces for span in cutter.feed(piece.value)]
    return spans + cutter.end()


def decode(spans: Sequence[Span], film: Film, _params: ShotsParams) -> Outcome:
    """Shots with exact times, their keyframes and a contact sheet. A film without frames yields nothing."""
    shots = [Shot(film.timeline.range(span.start, span.end), span.transition, span.score) for span in spans]
    results = tuple(shot.result(seq) for seq, shot in enumerate(shots))
    if film.pictures is None or not shots:
        return Outcome(results)
    sheet = _sheet(shots, film.pictures, film.scratch / "contact_sheet.jpg")
    return Outcome(
        results,
        (
            FileMade("keyframes", "keyframes.zip", "application/zip", film.pictures),
            FileMade("contact_sheet", "contact_sheet.jpg", "image/jpeg", sheet),
        ),
    )


def picker(params: ShotsParams) -> Picker:
    """Names the keyframes while the film is read, by the same decisions as `infer`."""
    return Keyframes(_cutter(params))


def _cutter(params: ShotsParams) -> Cutter:
    makers: dict[str, Callable[[], Cutter]] = {
        "transnetv2": lambda: Transitions(params.threshold),
        "hsv_luv": lambda: ColourCuts(params.min_shot_frames),
    }
    return makers[params.detector]()


def _batch(placement: Placement) -> int:
    """Windows at a time: a CPU is as fast with one, and reports sooner."""
    return 1 if placement.device == "cpu" else 16


def _sheet(shots: Sequence[Shot], pictures: Path, target: Path) -> Path:
    cells = [(name(shot, 1), f"{shot + 1}", shots[shot].range.start.timecode) for shot in chosen(len(shots))]
    return draw(pictures, cells, target)


ROOM = Room(name="shots", load=load, plan=plan, encode=encode, infer=infer, decode=decode, picker=picker)
