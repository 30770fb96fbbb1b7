"""Results as edits: timelines of OpenTimelineIO, and edit decision lists (CMX 3600) by its adapter.

Times follow the film's clock and agree with the timecodes of the results. Where frames are evenly spaced, a timeline
counts in frames at the film's rate. Where they are not, no rate counts them: a timeline then counts in ticks of the
clock, which is exact, and an edit list, which must count in frames, takes the nearest frame of its rate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from api.results.lists import spans, title
from shared.store.results import Found
from shared.values import Clock, StoredVideo

if TYPE_CHECKING:
    from opentimelineio.opentime import RationalTime, TimeRange as Span
    from opentimelineio.schema import Clip, Timeline

RATES = tuple(
    sorted([*map(Fraction, (24, 25, 30, 48, 50, 60)), *(Fraction(fps * 1000, 1001) for fps in (24, 30, 48, 60))])
)
"""Frames a second that a timecode can count (SMPTE ST 12-1 and its doubles), as OpenTimelineIO takes them."""
DROPPING = {Fraction(30_000, 1001), Fraction(60_000, 1001)}
"""Rates whose timecode leaves labels out so as to keep pace with the clock."""
LONGEST_TITLE = 70
"""Characters, by CMX 3600."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What is to be cut out of a film.

    Args:
        video: the film.
        rows: with ranges, in order.
        joined: laid back to back, as a summary is; else each at its own place in the film.
        origin: where they come from, as JSON; kept with a timeline.
    """

    video: StoredVideo
    rows: Sequence[Found]
    joined: bool
    origin: Mapping[str, Any]


def timeline_json(edit: Edit) -> str:
    """The edit as a file of OpenTimelineIO (`.otio`)."""
    from opentimelineio import adapters

    return str(adapters.write_to_string(_timeline(edit, _rate(edit.video.video.clock)), "otio_json"))


def edit_list(edit: Edit) -> str:
    """The edit as an EDL: sources by the film's time, the record from 00:00:00:00 on.

    The reel is `AX` and each clip has the film's name: editors find it by that. A rate that no timecode counts (10,
    120) is replaced by the next higher one that it does; the times stay the film's own. More than the 999 events that
    the format was made for get numbers of four digits.
    """
    from opentimelineio import adapters

    rate = edit_rate(edit.video.video.clock)
    made = _timeline(edit, rate, for_list=True)
    head = f"TITLE: {made.name}\nFCM: {'DROP FRAME' if rate in DROPPING else 'NON-DROP FRAME'}\n"
    if not edit.rows:
        return head
    made.name = ""  # the adapter writes an empty line after it
    return f"{head}\n{adapters.write_to_string(made, 'cmx_3600', rate=float(rate))}"


def edit_rate(clock: Clock) -> Fraction:
    """Frames a second of an edit list: the film's, or the next higher one that has timecodes."""
    return next((rate for rate in RATES if rate >= clock.fps), RATES[-1])


def _rate(clock: Clock) -> Fraction:
    """What a timeline counts in, per second: frames, or ticks where frames are unevenly spaced."""
    return 1 / clock.time_base if clock.vfr or not clock.fps else clock.fps


def _timeline(edit: Edit, rate: Fraction, *, for_list: bool = False) -> Timeline:
    from opentimelineio import schema

    track, reached = schema.Track(name="V1", kind=schema.TrackKind.Video), 0
    for row, span in spans(edit.rows):
        first, last = (round(moment.seconds * rate) for moment in (span.start, span.end))
        if last <= first:
            continue  # shorter than a frame of this rate
        if first > reached and not edit.joined:
            track.append(schema.Gap(source_range=_span(reached, first, rate)))
        clip = _listed(edit, row) if for_list else _clip(edit, row, rate)
        clip.source_range = _span(first, last, rate)
        track.append(clip)
        reached = last
    made = schema.Timeline(name=edit.video.name[:LONGEST_TITLE], metadata={"sceneworks": _origin(edit)})
    made.tracks.append(track)
    return made


def _clip(edit: Edit, row: Found, rate: Fraction) -> Clip:
    from opentimelineio import schema

    whole = _span(0, round(edit.video.video.duration * rate), rate)
    film = schema.ExternalReference(target_url=quote(edit.video.name), available_range=whole)
    film.name = edit.video.name
    said = {name: value for name, value in row.result.record().items() if value is not None}
    return schema.Clip(name=title(row), media_reference=film, metadata={"sceneworks": _plain(said)})


def _listed(edit: Edit, row: Found) -> Clip:
    """A clip as the adapter for edit lists writes it best: by the film's name, what it is as a comment."""
    from opentimelineio import schema

    score = row.result.score
    comment = f"{title(row)}{'' if score is None else f', score {score:.3f}'}".upper()
    film = schema.MissingReference(name=edit.video.name)
    more = {"cmx_3600": {"reel": "AX", "comments": [comment]}}
    return schema.Clip(name=edit.video.name, media_reference=film, metadata=more)


def _span(first: int, last: int, rate: Fraction) -> Span:
    from opentimelineio.opentime import TimeRange

    return TimeRange(_time(first, rate), _time(last - first, rate))


def _time(count: int, rate: Fraction) -> RationalTime:
    from opentimelineio.opentime import RationalTime

    return RationalTime(count, float(rate))


def _origin(edit: Edit) -> Any:
    """Where it comes from; the rate as a fraction, since a timeline's own is a float."""
    clock = edit.video.video.clock
    film = {"input_sha256": edit.video.sha256, "fps": str(clock.fps), "vfr": clock.vfr}
    return _plain({**edit.origin, **film, "time_base": str(clock.time_base)})


def _plain(value: dict[str, Any]) -> Any:
    """JSON values alone: what the library can keep."""
    return json.loads(json.dumps(value))
