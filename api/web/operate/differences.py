"""What changed between two runs of a film: the old one and the new one as two lanes on one time line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apiflask import APIBlueprint
from flask import render_template, request

from api.service.health import services
from shared.catalog import MENU
from shared.store import videos
from shared.store.archive import changes, history
from shared.store.archive.changes import Compared
from shared.values import Result, Run, RunState
from shared.values.archive.diff import CHANGES, Pairing

bp = APIBlueprint("differences", __name__, enable_openapi=False)

OTHERS = 20
"""Runs that are named to compare with."""


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch in a lane; times are seconds since the first frame, the end exclusive.

    Args:
        pair: number of the pairing that it is in.
        words: what became of it, for people.
    """

    pair: int
    change: str
    start: float
    end: float
    timecode: str
    until: str
    words: str


@dataclass(frozen=True, slots=True)
class Lanes:
    """Results of one kind in both runs."""

    compared: Compared
    before: tuple[Block, ...]
    after: tuple[Block, ...]


@bp.get("/runs/<run_id>/diff")
def show(run_id: str) -> str:
    """Two runs of a film, one above the other."""
    engine = services().engine
    found = changes.between(engine, run_id, request.args.get("against"), request.args.get("kind"))
    film = videos.get(engine, found.run.video_id)
    kept = history.runs(engine, film.id, limit=OTHERS, model=found.run.model)
    return render_template(
        "diff.html",
        film=film,
        run=found.run,
        against=found.against,
        lanes=[_lanes(compared) for compared in found.kinds],
        others=[one for one in kept if one.run.state is RunState.DONE and one.run.id != found.run.id],
        params=_changed(found.against, found.run),
        changes=CHANGES,
        menu=MENU,
        offset=float(film.video.start_time - film.video.container_start_time),
        duration=float(film.video.duration),
    )


def _lanes(compared: Compared) -> Lanes:
    numbered = list(enumerate(compared.pairings))
    before = [_block(compared.before[at], number, one) for number, one in numbered for at in one.before]
    after = [_block(compared.after[at], number, one) for number, one in numbered for at in one.after]
    return Lanes(compared, _in_order(before), _in_order(after))


def _in_order(blocks: Sequence[Block]) -> tuple[Block, ...]:
    return tuple(sorted(blocks, key=lambda block: (block.start, block.end)))


def _block(result: Result, number: int, pairing: Pairing) -> Block:
    span = result.range
    if span is None:
        raise ValueError(f"{result.kind} {result.seq} has no times")
    return Block(
        pair=number,
        change=pairing.change,
        start=round(float(span.start.seconds), 6),
        end=round(float(span.end.seconds), 6),
        timecode=span.start.timecode,
        until=span.end.timecode,
        words=words(pairing),
    )


def words(pairing: Pairing) -> str:
    """What became of it: `kept`, `moved: start +2 frames`, `merged, 2 into 1` ..."""
    match pairing.change:
        case "moved":
            told = (("start", pairing.start_by), ("end", pairing.end_by))
            return "moved: " + ", ".join(f"{edge} {by:+d} frame{'s' * (abs(by) != 1)}" for edge, by in told if by)
        case "merged" | "split" | "regrouped":
            return f"{pairing.change}, {len(pairing.before)} into {len(pairing.after)}"
        case _:
            return pairing.change


def _changed(old: Run, new: Run) -> list[tuple[str, object, object]]:
    """(name, old, new) of the parameters that differ."""
    names = dict.fromkeys([*old.params, *new.params])
    pairs = [(name, old.params.get(name), new.params.get(name)) for name in names]
    return [(name, before, after) for name, before, after in pairs if before != after]
