"""The page of the differences between two runs of a video: two lanes on one time line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apiflask import APIBlueprint
from flask import render_template, request

from api.http.context import get_services
from shared.catalog import CATALOG
from shared.store.videos import diff as videos_diff, history, videos
from shared.store.videos.diff import KindDiff
from shared.values import Result, Run, RunState
from shared.values.diff import CHANGE_KINDS, Pairing

bp = APIBlueprint("differences", __name__, enable_openapi=False)

MAX_OTHER_RUNS = 20
"""Runs that are named to compare with."""


@dataclass(frozen=True, slots=True)
class LaneBlock:
    """A stretch in a lane; times are seconds since the first frame, the end exclusive.

    Args:
        pair: number of the pairing that it is in.
        description: the change, for people.
    """

    pair: int
    change: str
    start: float
    end: float
    timecode: str
    until: str
    description: str


@dataclass(frozen=True, slots=True)
class Lanes:
    """Results of one kind in both runs."""

    compared: KindDiff
    before: tuple[LaneBlock, ...]
    after: tuple[LaneBlock, ...]


@bp.get("/runs/<run_id>/diff")
def show_diff(run_id: str) -> str:
    """Show two runs of a video, one above the other."""
    engine = get_services().engine
    diff = videos_diff.diff_runs(engine, run_id, request.args.get("base_run_id"), request.args.get("kind"))
    video = videos.get_video(engine, diff.run.video_id)
    earlier_runs = history.list_runs(engine, video.id, limit=MAX_OTHER_RUNS, model=diff.run.model)
    return render_template(
        "diff.html",
        film=video,
        run=diff.run,
        base_run=diff.base_run,
        lanes=[_build_lanes(compared) for compared in diff.kinds],
        others=[entry for entry in earlier_runs if entry.run.state is RunState.DONE and entry.run.id != diff.run.id],
        params=_compare_params(diff.base_run, diff.run),
        changes=CHANGE_KINDS,
        menu=CATALOG,
        offset=float(video.facts.start_time - video.facts.container_start_time),
        duration=float(video.facts.duration),
    )


def _build_lanes(compared: KindDiff) -> Lanes:
    numbered = list(enumerate(compared.pairings))
    before = [
        _build_block(compared.before[index], number, pairing)
        for number, pairing in numbered
        for index in pairing.before
    ]
    after = [
        _build_block(compared.after[index], number, pairing) for number, pairing in numbered for index in pairing.after
    ]
    return Lanes(compared, _sort_blocks(before), _sort_blocks(after))


def _sort_blocks(blocks: Sequence[LaneBlock]) -> tuple[LaneBlock, ...]:
    return tuple(sorted(blocks, key=lambda block: (block.start, block.end)))


def _build_block(result: Result, number: int, pairing: Pairing) -> LaneBlock:
    span = result.range
    if span is None:
        raise ValueError(f"{result.kind} {result.seq} has no times")
    return LaneBlock(
        pair=number,
        change=pairing.change,
        start=round(float(span.start.seconds), 6),
        end=round(float(span.end.seconds), 6),
        timecode=span.start.timecode,
        until=span.end.timecode,
        description=describe_change(pairing),
    )


def describe_change(pairing: Pairing) -> str:
    """What became of it: `kept`, `moved: start +2 frames`, `merged, 2 into 1` ..."""
    match pairing.change:
        case "moved":
            edges = (("start", pairing.start_shift), ("end", pairing.end_shift))
            return "moved: " + ", ".join(
                f"{edge} {frames:+d} frame{'s' * (abs(frames) != 1)}" for edge, frames in edges if frames
            )
        case "merged" | "split" | "regrouped":
            return f"{pairing.change}, {len(pairing.before)} into {len(pairing.after)}"
        case _:
            return pairing.change


def _compare_params(old: Run, new: Run) -> list[tuple[str, object, object]]:
    """(name, old, new) of the parameters that differ."""
    names = dict.fromkeys([*old.params, *new.params])
    pairs = [(name, old.params.get(name), new.params.get(name)) for name in names]
    return [(name, before, after) for name, before, after in pairs if before != after]
