"""What changed from one run of a video to another: read for two runs, and for the videos of a batch page by page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.catalog import CATALOG
from shared.errors import Conflict, FieldError, InvalidRequest, NotFound
from shared.store import mapping
from shared.store.transaction import transactional
from shared.store.videos.videos import get_video_row
from shared.tables import BatchItemRow, BatchRow, JobRunRow, ResultRow, RunRow
from shared.values import Clock, Result, Run, RunState, TimeRange
from shared.values.diff import DiffSummary, Pairing, pair_ranges

COMPARABLE_KINDS = ("shot", "scene", "highlight", "segment")
"""Results that lie in time one after the other: what two runs are compared by unless a kind is named."""
FRAME_CLOCK = Clock(Fraction(1), Fraction(0), 0)
"""Where only frames are compared, pts are not read."""

RunPair = tuple[str, str]
"""Ids of an old run and of a new one."""
DiffOutcome = Literal["compared", "unchanged", "first", "unfinished", "forgotten"]


@dataclass(frozen=True, slots=True)
class KindDiff:
    """Results of one kind in two runs, in the order of the video, and how they belong together."""

    kind: str
    before: tuple[Result, ...]
    after: tuple[Result, ...]
    pairings: tuple[Pairing, ...]
    summary: DiffSummary


@dataclass(frozen=True, slots=True)
class RunDiff:
    """Two finished runs of a video, the old one and the new one."""

    base_run: Run
    run: Run
    kinds: tuple[KindDiff, ...]


@dataclass(frozen=True, slots=True)
class VideoChange:
    """What a batch has done to one video by one of its analyses.

    Args:
        model, run_id: the run of the batch; None while the video has none.
        base_run: the run that was current before; None where there was none.
        outcome: `compared`: there are two runs. `unchanged`: the batch reused the earlier run. `first`: there was no
            run before. `unfinished`: the run is not done. `forgotten`: the run before, or the job, was deleted.
    """

    position: int
    video_id: str
    model: str | None
    run_id: str | None
    base_run_id: str | None
    outcome: DiffOutcome

    @property
    def run_pair(self) -> RunPair | None:
        """The runs to compare."""
        return (
            (self.base_run_id, self.run_id) if self.outcome == "compared" and self.base_run_id and self.run_id else None
        )


# Two runs -------------------------------------------------------------------------------------------------------------


@transactional
def diff_runs(session: Session, run_id: str, base_run_id: str | None, kind: str | None = None) -> RunDiff:
    """What changed from run `base_run` (None: the one that this run has superseded) to this run.

    Raises:
        NotFound: there is no such run.
        Conflict: a run is not done, or it has superseded none.
        InvalidRequest: they are of two videos, or have no results of this kind that lie one after the other.
    """
    new = _get_finished_run(session, run_id)
    old = _get_finished_run(session, base_run_id) if base_run_id is not None else _get_superseded_run(session, new)
    if old.video_id != new.video_id:
        raise _invalid_field("/base_run_id", "other_video", "These are runs of two videos.")
    clock = Clock.from_dict(get_video_row(session, new.video_id).probe)
    kind_diffs = [
        _compare_kind(session, old.id, new.id, kind_name, clock)
        for kind_name in _choose_kinds(old.model, new.model, kind)
    ]
    return RunDiff(mapping.to_run(old), mapping.to_run(new), tuple(kind_diffs))


def list_comparable_kinds(*models: str) -> tuple[str, ...]:
    """The kinds of result that runs of all these models are compared by."""
    return tuple(
        kind
        for kind in COMPARABLE_KINDS
        if all(model in CATALOG and kind in CATALOG[model].results for model in models)
    )


def _choose_kinds(old: str, new: str, kind: str | None) -> tuple[str, ...]:
    if kind is None:
        chosen = list_comparable_kinds(old, new)
    else:
        chosen = (kind,) if all(model in CATALOG and kind in CATALOG[model].results for model in (old, new)) else ()
    if not chosen:
        detail = f"{old} and {new} have no {'such results' if kind else 'results to compare'} in common."
        raise _invalid_field("/kind", "unknown_kind", detail)
    return chosen


def _get_finished_run(session: Session, run_id: str) -> RunRow:
    row = session.get(RunRow, run_id)
    if row is None:
        raise NotFound("There is no such run.")
    if row.state != RunState.DONE:
        raise Conflict(f"Run {run_id} is {row.state}: only finished ones can be compared.")
    return row


def _get_superseded_run(session: Session, new: RunRow) -> RunRow:
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


def _compare_kind(session: Session, old: str, new: str, kind: str, clock: Clock) -> KindDiff:
    sides = []
    for run_id in (old, new):
        statement = select(ResultRow).where(ResultRow.run_id == run_id, ResultRow.kind == kind)
        rows = session.scalars(statement.order_by(ResultRow.start_frame, ResultRow.seq))
        sides.append([mapping.to_result(row, clock) for row in rows])
    before, after = ([_require_range(row) for row in side] for side in sides)
    for side in (before, after):
        _check_no_overlap(side, kind)
    pairings = pair_ranges(before, after)
    summary = DiffSummary.from_pairings(before, after, pairings)
    return KindDiff(kind, tuple(sides[0]), tuple(sides[1]), tuple(pairings), summary)


def _require_range(result: Result) -> TimeRange:
    if result.range is None:
        raise _invalid_field("/kind", "no_times", f"Results of kind {result.kind} have no times to compare.")
    return result.range


def _check_no_overlap(ranges: Sequence[TimeRange], kind: str) -> None:
    if any(after.start.frame < before.end.frame for before, after in pairwise(ranges)):
        raise _invalid_field(
            "/kind", "overlapping", f"Results of kind {kind} overlap: they are no stretches to compare."
        )


def _invalid_field(pointer: str, code: str, detail: str) -> InvalidRequest:
    return InvalidRequest(detail, errors=(FieldError(pointer, code, detail),))


# A batch --------------------------------------------------------------------------------------------------------------


@transactional
def list_batch_changes(session: Session, batch_id: str, *, limit: int, after: int = -1) -> list[list[VideoChange]]:
    """What became of the next videos of a batch, by its analyses in order of their runs; NotFound."""
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
    runs = _load_requested_runs(session, [item.job_id for item in items if item.job_id is not None])
    known = _find_finished(session, {run_id for item in items for run_id in item.before.values()})
    return [_build_changes(item, runs[item.job_id or ""], known) for item in items]


def _load_requested_runs(session: Session, job_ids: Sequence[str]) -> dict[str, list[tuple[str, str, str]]]:
    """(model, run, state) of what was asked for, by job."""
    statement = (
        select(JobRunRow.job_id, RunRow.model, RunRow.id, RunRow.state)
        .join(RunRow, RunRow.id == JobRunRow.run_id)
        .where(JobRunRow.job_id.in_(job_ids), JobRunRow.asked)
        .order_by(JobRunRow.job_id, JobRunRow.position)
    )
    runs_by_job = defaultdict(list)
    for job_id, model, run_id, state in session.execute(statement):
        runs_by_job[job_id].append((model, run_id, state))
    return runs_by_job


def _find_finished(session: Session, run_ids: Iterable[str]) -> frozenset[str]:
    return frozenset(session.scalars(select(RunRow.id).where(RunRow.id.in_(run_ids), RunRow.state == RunState.DONE)))


def _build_changes(
    item: BatchItemRow, runs: Sequence[tuple[str, str, str]], finished: frozenset[str]
) -> list[VideoChange]:
    if not runs:
        outcome: DiffOutcome = "unfinished" if item.started_at is None or item.error else "forgotten"
        return [VideoChange(item.position, item.video_id, None, None, None, outcome)]
    return [
        VideoChange(item.position, item.video_id, model, run_id, item.before.get(model),
               _classify_outcome(run_id, state, item.before.get(model), finished))
        for model, run_id, state in runs
    ]  # fmt: skip


def _classify_outcome(run_id: str, state: str, before: str | None, finished: frozenset[str]) -> DiffOutcome:
    if state != RunState.DONE:
        return "unfinished"
    if before is None:
        return "first"
    if before == run_id:
        return "unchanged"
    return "compared" if before in finished else "forgotten"


@transactional
def summarise_pairs(session: Session, pairs: Sequence[tuple[RunPair, Sequence[str]]]) -> list[dict[str, DiffSummary]]:
    """What changed between each pair of runs, in numbers, by the kinds named with it."""
    run_ids = {run_id for pair, _ in pairs for run_id in pair}
    kinds = {kind for _, named in pairs for kind in named}
    statement = (
        select(ResultRow.run_id, ResultRow.kind, ResultRow.start_frame, ResultRow.end_frame)
        .where(ResultRow.run_id.in_(run_ids), ResultRow.kind.in_(kinds))
        .order_by(ResultRow.run_id, ResultRow.kind, ResultRow.start_frame, ResultRow.seq)
    )
    ranges: dict[tuple[str, str], list[TimeRange]] = defaultdict(list)
    for run_id, kind, start, end in session.execute(statement):
        if start is not None and end is not None:
            ranges[run_id, kind].append(TimeRange(FRAME_CLOCK.moment_at(start, start), FRAME_CLOCK.moment_at(end, end)))
    return [
        {kind: _summarise_ranges(ranges[old, kind], ranges[new, kind]) for kind in named} for (old, new), named in pairs
    ]


def _summarise_ranges(before: Sequence[TimeRange], after: Sequence[TimeRange]) -> DiffSummary:
    return DiffSummary.from_pairings(before, after, pair_ranges(before, after))
