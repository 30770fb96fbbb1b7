"""What changed from one run of a video to another: read for two runs, and for the films of a batch page by page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.catalog import MENU
from shared.errors import Conflict, FieldError, InvalidRequest, NotFound
from shared.store import views
from shared.store.transaction import verb
from shared.store.videos import row_of
from shared.tables import BatchItemRow, BatchRow, JobRunRow, ResultRow, RunRow
from shared.values import Clock, Result, Run, RunState, TimeRange
from shared.values.archive.diff import Pairing, Sums, compare

KINDS = ("shot", "scene", "highlight", "segment")
"""Results that lie in time one after the other: what two runs are compared by unless a kind is named."""
FRAMES_ALONE = Clock(Fraction(1), Fraction(0), 0)
"""Where only frames are compared, pts are not read."""

Pair = tuple[str, str]
"""Ids of an old run and of a new one."""
Fate = Literal["compared", "unchanged", "first", "unfinished", "forgotten"]


@dataclass(frozen=True, slots=True)
class Compared:
    """Results of one kind in two runs, in the order of the film, and how they belong together."""

    kind: str
    before: tuple[Result, ...]
    after: tuple[Result, ...]
    pairings: tuple[Pairing, ...]
    sums: Sums


@dataclass(frozen=True, slots=True)
class Diff:
    """Two finished runs of a video, the old one and the new one."""

    against: Run
    run: Run
    kinds: tuple[Compared, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What a batch has done to one film by one of its analyses.

    Args:
        model, run_id: the run of the batch; None while the film has none.
        against: the run that was current before; None where there was none.
        fate: `compared`: there are two runs. `unchanged`: the batch shared the run that was there. `first`: nothing was
            there before. `unfinished`: the run is not done. `forgotten`: the run before, or the job, was deleted.
    """

    position: int
    video_id: str
    model: str | None
    run_id: str | None
    against: str | None
    fate: Fate

    @property
    def pair(self) -> Pair | None:
        """The runs to compare."""
        return (self.against, self.run_id) if self.fate == "compared" and self.against and self.run_id else None


# Two runs -------------------------------------------------------------------------------------------------------------


@verb
def between(session: Session, run_id: str, against: str | None, kind: str | None = None) -> Diff:
    """What changed from run `against` (None: the one that this run has superseded) to this run.

    Raises:
        NotFound: there is no such run.
        Conflict: a run is not done, or it has superseded none.
        InvalidRequest: they are of two films, or have no results of this kind that lie one after the other.
    """
    new = _finished(session, run_id)
    old = _finished(session, against) if against is not None else _before(session, new)
    if old.video_id != new.video_id:
        raise _fault("/against", "other_video", "These are runs of two videos.")
    clock = Clock.read(row_of(session, new.video_id).probe)
    found = [_compared(session, old.id, new.id, one, clock) for one in _kinds(old.model, new.model, kind)]
    return Diff(views.run(old), views.run(new), tuple(found))


def kinds_of(*models: str) -> tuple[str, ...]:
    """The kinds of result that runs of all these models are compared by."""
    return tuple(kind for kind in KINDS if all(model in MENU and kind in MENU[model].results for model in models))


def _kinds(old: str, new: str, kind: str | None) -> tuple[str, ...]:
    if kind is None:
        found = kinds_of(old, new)
    else:
        found = (kind,) if all(model in MENU and kind in MENU[model].results for model in (old, new)) else ()
    if not found:
        detail = f"{old} and {new} have no {'such results' if kind else 'results to compare'} in common."
        raise _fault("/kind", "unknown_kind", detail)
    return found


def _finished(session: Session, run_id: str) -> RunRow:
    row = session.get(RunRow, run_id)
    if row is None:
        raise NotFound("There is no such run.")
    if row.state != RunState.DONE:
        raise Conflict(f"Run {run_id} is {row.state}: only finished ones can be compared.")
    return row


def _before(session: Session, new: RunRow) -> RunRow:
    earlier = (
        select(RunRow)
        .where(RunRow.video_id == new.video_id, RunRow.model == new.model, RunRow.state == RunState.DONE)
        .where(RunRow.finished_at < new.finished_at, RunRow.id != new.id)
        .order_by(RunRow.finished_at.desc(), RunRow.id.desc())
        .limit(1)
    )
    row = session.scalars(earlier).one_or_none()
    if row is None:
        raise Conflict("This run has superseded none: name the run to compare it with.")
    return row


def _compared(session: Session, old: str, new: str, kind: str, clock: Clock) -> Compared:
    sides = []
    for run_id in (old, new):
        statement = select(ResultRow).where(ResultRow.run_id == run_id, ResultRow.kind == kind)
        rows = session.scalars(statement.order_by(ResultRow.start_frame, ResultRow.seq))
        sides.append([views.result(row, clock) for row in rows])
    before, after = ([_range(row) for row in side] for side in sides)
    for side in (before, after):
        _check_apart(side, kind)
    pairings = compare(before, after)
    told = Sums.of(before, after, pairings)
    return Compared(kind, tuple(sides[0]), tuple(sides[1]), tuple(pairings), told)


def _range(result: Result) -> TimeRange:
    if result.range is None:
        raise _fault("/kind", "no_times", f"Results of kind {result.kind} have no times to compare.")
    return result.range


def _check_apart(ranges: Sequence[TimeRange], kind: str) -> None:
    if any(after.start.frame < before.end.frame for before, after in pairwise(ranges)):
        raise _fault("/kind", "overlapping", f"Results of kind {kind} overlap: they are no stretches to compare.")


def _fault(pointer: str, code: str, detail: str) -> InvalidRequest:
    return InvalidRequest(detail, errors=(FieldError(pointer, code, detail),))


# A batch --------------------------------------------------------------------------------------------------------------


@verb
def of_batch(session: Session, batch_id: str, *, limit: int, after: int = -1) -> list[list[Change]]:
    """What became of the next films of a batch, by its analyses in order of their runs; NotFound."""
    if session.get(BatchRow, batch_id) is None:
        raise NotFound("There is no such batch.")
    items = list(
        session.scalars(
            select(BatchItemRow)
            .where(BatchItemRow.batch_id == batch_id, BatchItemRow.position > after)
            .order_by(BatchItemRow.position)
            .limit(limit)
        )
    )
    runs = _runs(session, [item.job_id for item in items if item.job_id is not None])
    known = _done(session, {run_id for item in items for run_id in item.before.values()})
    return [_changes(item, runs[item.job_id or ""], known) for item in items]


def _runs(session: Session, job_ids: Sequence[str]) -> dict[str, list[tuple[str, str, str]]]:
    """(model, run, state) of what was asked for, by job."""
    statement = (
        select(JobRunRow.job_id, RunRow.model, RunRow.id, RunRow.state)
        .join(RunRow, RunRow.id == JobRunRow.run_id)
        .where(JobRunRow.job_id.in_(job_ids), JobRunRow.asked)
        .order_by(JobRunRow.job_id, JobRunRow.position)
    )
    found = defaultdict(list)
    for job_id, model, run_id, state in session.execute(statement):
        found[job_id].append((model, run_id, state))
    return found


def _done(session: Session, run_ids: Iterable[str]) -> frozenset[str]:
    return frozenset(session.scalars(select(RunRow.id).where(RunRow.id.in_(run_ids), RunRow.state == RunState.DONE)))


def _changes(item: BatchItemRow, runs: Sequence[tuple[str, str, str]], known: frozenset[str]) -> list[Change]:
    if not runs:
        fate: Fate = "unfinished" if item.started_at is None or item.error else "forgotten"
        return [Change(item.position, item.video_id, None, None, None, fate)]
    return [
        Change(item.position, item.video_id, model, run_id, item.before.get(model),
               _fate(run_id, state, item.before.get(model), known))
        for model, run_id, state in runs
    ]  # fmt: skip


def _fate(run_id: str, state: str, before: str | None, known: frozenset[str]) -> Fate:
    if state != RunState.DONE:
        return "unfinished"
    if before is None:
        return "first"
    if before == run_id:
        return "unchanged"
    return "compared" if before in known else "forgotten"


@verb
def sums(session: Session, pairs: Sequence[tuple[Pair, Sequence[str]]]) -> list[dict[str, Sums]]:
    """What changed between each pair of runs, in numbers, by the kinds named with it."""
    run_ids = {run_id for pair, _ in pairs for run_id in pair}
    kinds = {kind for _, named in pairs for kind in named}
    statement = (
        select(ResultRow.run_id, ResultRow.kind, ResultRow.start_frame, ResultRow.end_frame)
        .where(ResultRow.run_id.in_(run_ids), ResultRow.kind.in_(kinds))
        .order_by(ResultRow.run_id, ResultRow.kind, ResultRow.start_frame, ResultRow.seq)
    )
    found: dict[tuple[str, str], list[TimeRange]] = defaultdict(list)
    for run_id, kind, start, end in session.execute(statement):
        if start is not None and end is not None:
            found[run_id, kind].append(TimeRange(FRAMES_ALONE.at(start, start), FRAMES_ALONE.at(end, end)))
    return [{kind: _sums(found[old, kind], found[new, kind]) for kind in named} for (old, new), named in pairs]


def _sums(before: Sequence[TimeRange], after: Sequence[TimeRange]) -> Sums:
    return Sums.of(before, after, compare(before, after))
