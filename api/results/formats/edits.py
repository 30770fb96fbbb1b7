"""Results as edits: timelines of OpenTimelineIO, and edit decision lists (CMX 3600) by its adapter.

Times follow the video's clock and agree with the timecodes of the results. Where frames are evenly spaced, a timeline
counts in frames at the video's rate. Where they are not, no rate counts them: a timeline then counts in ticks of the
clock, which is exact, and an edit list, which must count in frames, takes the nearest frame of its rate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from api.results.formats.text import format_title, iter_spans
from shared.store.results import RunResult
from shared.values import Clock, StoredVideo

if TYPE_CHECKING:
    from opentimelineio.opentime import RationalTime, TimeRange as Span
    from opentimelineio.schema import Clip, Timeline

TIMECODE_RATES = tuple(
    sorted([*map(Fraction, (24, 25, 30, 48, 50, 60)), *(Fraction(fps * 1000, 1001) for fps in (24, 30, 48, 60))])
)
"""Frames a second that a timecode can count (SMPTE ST 12-1 and its doubles), as OpenTimelineIO takes them."""
DROP_FRAME_RATES = {Fraction(30_000, 1001), Fraction(60_000, 1001)}
"""Rates whose timecode leaves labels out so as to keep pace with the clock."""
MAX_TITLE_CHARS = 70
"""Characters, by CMX 3600."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What is to be cut out of a video.

    Args:
        video: the video.
        rows: with ranges, in order.
        back_to_back: laid back to back, as a summary is; else each at its own place in the video.
        origin: where they come from, as JSON; kept with a timeline.
    """

    video: StoredVideo
    rows: Sequence[RunResult]
    back_to_back: bool
    origin: Mapping[str, Any]


def render_otio(edit: Edit) -> str:
    """The edit as a file of OpenTimelineIO (`.otio`)."""
    from opentimelineio import adapters

    return str(
        adapters.write_to_string(_build_timeline(edit, _choose_timeline_rate(edit.video.facts.clock)), "otio_json")
    )


def render_edl(edit: Edit) -> str:
    """The edit as an EDL: sources by the video's time, the record from 00:00:00:00 on.

    The reel is `AX` and each clip has the video's name: editors find it by that. A rate that no timecode counts (10,
    120) is replaced by the next higher one that it does; the times stay the video's own. More than the 999 events that
    the format was made for get numbers of four digits.
    """
    from opentimelineio import adapters

    rate = choose_edl_rate(edit.video.facts.clock)
    timeline = _build_timeline(edit, rate, for_edl=True)
    header = f"TITLE: {timeline.name}\nFCM: {'DROP FRAME' if rate in DROP_FRAME_RATES else 'NON-DROP FRAME'}\n"
    if not edit.rows:
        return header
    timeline.name = ""  # the adapter writes an empty line after it
    return f"{header}\n{adapters.write_to_string(timeline, 'cmx_3600', rate=float(rate))}"


def choose_edl_rate(clock: Clock) -> Fraction:
    """Frames a second of an edit list: the video's, or the next higher one that has timecodes."""
    return next((rate for rate in TIMECODE_RATES if rate >= clock.fps), TIMECODE_RATES[-1])


def _choose_timeline_rate(clock: Clock) -> Fraction:
    """What a timeline counts in, per second: frames, or ticks where frames are unevenly spaced."""
    return 1 / clock.time_base if clock.vfr or not clock.fps else clock.fps


def _build_timeline(edit: Edit, rate: Fraction, *, for_edl: bool = False) -> Timeline:
    from opentimelineio import schema

    track, end_frame = schema.Track(name="V1", kind=schema.TrackKind.Video), 0
    for row, span in iter_spans(edit.rows):
        first, last = (round(moment.seconds * rate) for moment in (span.start, span.end))
        if last <= first:
            continue  # shorter than a frame of this rate
        if first > end_frame and not edit.back_to_back:
            track.append(schema.Gap(source_range=_to_time_range(end_frame, first, rate)))
        clip = _build_edl_clip(edit, row) if for_edl else _build_clip(edit, row, rate)
        clip.source_range = _to_time_range(first, last, rate)
        track.append(clip)
        end_frame = last
    timeline = schema.Timeline(name=edit.video.name[:MAX_TITLE_CHARS], metadata={"sceneworks": _build_origin(edit)})
    timeline.tracks.append(track)
    return timeline


def _build_clip(edit: Edit, row: RunResult, rate: Fraction) -> Clip:
    from opentimelineio import schema

    available_range = _to_time_range(0, round(edit.video.facts.duration * rate), rate)
    reference = schema.ExternalReference(target_url=quote(edit.video.name), available_range=available_range)
    reference.name = edit.video.name
    fields = {name: value for name, value in row.result.to_dict().items() if value is not None}
    return schema.Clip(
        name=format_title(row), media_reference=reference, metadata={"sceneworks": _to_plain_json(fields)}
    )


def _build_edl_clip(edit: Edit, row: RunResult) -> Clip:
    """A clip as the adapter for edit lists writes it best: by the video's name, what it is as a comment."""
    from opentimelineio import schema

    score = row.result.score
    comment = f"{format_title(row)}{'' if score is None else f', score {score:.3f}'}".upper()
    reference = schema.MissingReference(name=edit.video.name)
    metadata = {"cmx_3600": {"reel": "AX", "comments": [comment]}}
    return schema.Clip(name=edit.video.name, media_reference=reference, metadata=metadata)


def _to_time_range(first: int, last: int, rate: Fraction) -> Span:
    from opentimelineio.opentime import TimeRange

    return TimeRange(_to_rational_time(first, rate), _to_rational_time(last - first, rate))


def _to_rational_time(count: int, rate: Fraction) -> RationalTime:
    from opentimelineio.opentime import RationalTime

    return RationalTime(count, float(rate))


def _build_origin(edit: Edit) -> Any:
    """Where it comes from; the rate as a fraction, since a timeline's own is a float."""
    clock = edit.video.facts.clock
    video_facts = {"input_sha256": edit.video.sha256, "fps": str(clock.fps), "vfr": clock.vfr}
    return _to_plain_json({**edit.origin, **video_facts, "time_base": str(clock.time_base)})


def _to_plain_json(value: dict[str, Any]) -> Any:
    """JSON values alone: what the library can keep."""
    return json.loads(json.dumps(value))
