"""Runs as workers see them: claimed under a fence, touched, and ended exactly once.

Every effect carries the fence of its claim. A worker that was thought dead and comes back holds an old fence: its
statements match no row, and it stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, insert, or_, select, update
from sqlalchemy.orm import Session

from shared.store import mapping
from shared.store.counters import LEASES_LOST, MESSAGES_DROPPED, RESULTS_DROPPED, increment_counter
from shared.store.runs.queues import is_queue_open
from shared.store.search.embeddings import insert_embeddings
from shared.store.transaction import transactional
from shared.tables import ArtifactRow, NeedRow, ResultRow, RunRow, VideoRow, WorkerRow
from shared.values import Artifact, Embedding, Progress, Result, RunState, StoredVideo, WakeUp

CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a run: good while its fence is the run's."""

    run_id: str
    model: str
    params: dict[str, Any]
    weights: str | None
    attempt: int
    max_attempts: int
    fence: int
    owner: str
    video: StoredVideo
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TouchReply:
    """Reply to a worker's progress report: whether the run is cancelled, and whether the worker is to stop."""

    cancel: bool
    stopping: bool


@transactional
def claim_run(session: Session, run_id: str, *, owner: str, device: str, precision: str, version: str, lease_s: float
          ) -> Claim | None:  # fmt: skip
    """Claim a run that is queued or whose lease has expired.

    None: a duplicate message, or one for a paused queue; to be dropped, as beat sends again what is queued.
    """
    before = session.execute(select(RunRow.model, RunRow.state).where(RunRow.id == run_id).with_for_update()).first()
    statement = (
        update(RunRow)
        .where(RunRow.id == run_id, _is_claimable())
        .values(
            state=RunState.RUNNING,
            attempt=RunRow.attempt + 1,
            fence=RunRow.fence + 1,
            owner=owner,
            device=device,
            precision=precision,
            version=version,
            lease_until=_seconds_from_now(lease_s),
            started_at=func.coalesce(RunRow.started_at, func.now()),
            updated_at=func.now(),
            stages=[],
            eta_s=None,
            error=None,
        )
        .returning(RunRow)
    )
    row = session.scalars(statement).one_or_none()
    if before is not None and row is not None and before.state == RunState.RUNNING:
        increment_counter(session, LEASES_LOST, model=row.model)
    if row is None:
        _count_dropped_message(session, run_id)
    return _build_claim(session, row, owner) if row else None


def _count_dropped_message(session: Session, run_id: str) -> None:
    """Count a message that starts nothing, and why it does not."""
    queue_open = is_queue_open().label("queue_open")
    row = session.execute(select(RunRow.model, RunRow.state, queue_open).where(RunRow.id == run_id)).one_or_none()
    if row is None:
        reason = "gone"
    elif row.state == RunState.QUEUED:
        reason = "early" if row.queue_open else "paused"
    else:
        reason = "ended" if RunState(row.state).has_ended else row.state
    increment_counter(session, MESSAGES_DROPPED, model=row.model if row else "", reason=reason)


def _is_claimable() -> ColumnElement[bool]:
    """Build the condition that a run can be claimed: queued or with an expired lease, and its queue is open."""
    ready = and_(RunRow.state == RunState.QUEUED, RunRow.available_at <= func.now())
    lease_expired = and_(
        RunRow.state == RunState.RUNNING,
        RunRow.lease_until < func.now(),
        ~RunRow.cancel_requested,
        RunRow.attempt < RunRow.max_attempts,
    )
    return and_(is_queue_open(), or_(ready, lease_expired))


def _build_claim(session: Session, row: RunRow, owner: str) -> Claim:
    needs = session.scalars(select(NeedRow.needs_run_id).where(NeedRow.run_id == row.id))
    video = session.get_one(VideoRow, row.video_id)
    return Claim(
        run_id=row.id,
        model=row.model,
        params=row.params,
        weights=row.weights,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        fence=row.fence,
        owner=owner,
        video=mapping.to_stored_video(video),
        needs=tuple(needs),
    )


@transactional
def touch_run(session: Session, claim: Claim, progress: Progress, lease_s: float) -> TouchReply | None:
    """Progress out, lease renewed, cancel in: one statement. None: fenced off. Progress never goes back."""
    statement = (
        update(RunRow)
        .where(*_owned_by(claim))
        .values(
            lease_until=_seconds_from_now(lease_s),
            stages=[stage.to_dict() for stage in progress.stages],
            fraction=func.greatest(RunRow.fraction, progress.fraction),
            eta_s=round(progress.eta_s, 1) if progress.eta_s is not None else None,
            updated_at=func.now(),
        )
        .returning(RunRow.cancel_requested)
    )
    cancel = session.scalars(statement).one_or_none()
    if cancel is None:
        return None
    stopping = session.scalars(select(WorkerRow.stopping).where(WorkerRow.id == claim.owner)).one_or_none()
    return TouchReply(cancel=cancel, stopping=bool(stopping))


@transactional
def finish_run(
    session: Session,
    claim: Claim,
    *,
    progress: Progress,
    weights: str | None = None,
    decode_failures: int,
    results: Sequence[Result],
    artifacts: Sequence[Artifact],
    embeddings: Sequence[Embedding] = (),
) -> tuple[WakeUp, ...] | None:
    """All that the run yields and its state in one transaction, then the dependants now free. None: fenced off.

    Called again after its answer was lost, it finds its own effect and says so instead of writing twice. Embeddings are
    written before the row is locked: many take seconds, and the heartbeat and a cancel have to get through meanwhile.
    """
    if session.scalars(select(RunRow.id).where(*_owned_by(claim))).one_or_none() is None:
        if _is_already_done(session, claim):
            return ()
        increment_counter(session, RESULTS_DROPPED, model=claim.model)
        return None
    fingerprint, run_identity = (
        claim.weights or weights,
        {"run_id": claim.run_id, "video_id": claim.video.id, "model": claim.model},
    )
    with session.begin_nested() as savepoint:
        insert_embeddings(session, embeddings, weights=fingerprint, **run_identity)
        ended = _mark_done(session, claim, progress, fingerprint, decode_failures)
        if not ended:
            savepoint.rollback()
    if not ended:
        increment_counter(session, RESULTS_DROPPED, model=claim.model)
        return None
    _insert_outputs(session, claim.run_id, results, artifacts)
    return _release_dependants(session, claim.run_id)


def _mark_done(session: Session, claim: Claim, progress: Progress, weights: str | None, decode_failures: int) -> bool:
    """Let the run be done. False: fenced off."""
    done = (
        update(RunRow)
        .where(*_owned_by(claim))
        .values(
            state=RunState.DONE,
            weights=func.coalesce(RunRow.weights, weights),
            stages=[stage.to_dict() for stage in progress.stages],
            fraction=1.0,
            eta_s=None,
            decode_failures=decode_failures,
            lease_until=None,
            finished_at=func.now(),
            updated_at=func.now(),
        )
        .returning(RunRow.id)
    )
    return session.scalars(done).one_or_none() is not None


def _is_already_done(session: Session, claim: Claim) -> bool:
    statement = select(RunRow.id).where(
        RunRow.id == claim.run_id, RunRow.fence == claim.fence, RunRow.state == RunState.DONE
    )
    return session.scalars(statement).one_or_none() is not None


def _insert_outputs(session: Session, run_id: str, results: Sequence[Result], artifacts: Sequence[Artifact]) -> None:
    for first in range(0, len(results), CHUNK):
        rows = [_result_values(run_id, result) for result in results[first : first + CHUNK]]
        session.execute(insert(ResultRow), rows)
    for item in artifacts:
        session.add(
            ArtifactRow(
                id=item.id,
                run_id=run_id,
                kind=item.kind,
                name=item.name,
                media_type=item.media_type,
                sha256=item.sha256,
                size=item.size,
            )
        )
    session.flush()


def _result_values(run_id: str, result: Result) -> dict[str, Any]:
    span = result.range
    return {
        "run_id": run_id,
        "kind": result.kind,
        "seq": result.seq,
        "start_frame": span.start.frame if span else None,
        "start_pts": span.start.pts if span else None,
        "end_frame": span.end.frame if span else None,
        "end_pts": span.end.pts if span else None,
        "score": result.score,
        "data": result.data,
    }


def _release_dependants(session: Session, run_id: str) -> tuple[WakeUp, ...]:
    """Count down the dependants: of two needs that end at once, each must see the work of the other."""
    dependants = select(NeedRow.run_id).where(NeedRow.needs_run_id == run_id)
    statement = (
        update(RunRow)
        .where(RunRow.id.in_(dependants), RunRow.state == RunState.WAITING)
        .values(
            waits=RunRow.waits - 1,
            state=case((RunRow.waits == 1, RunState.QUEUED), else_=RunState.WAITING),
            dispatched_at=case((RunRow.waits == 1, func.now()), else_=None),
            updated_at=func.now(),
        )
        .returning(RunRow.id, RunRow.model, RunRow.priority, RunRow.waits, RunRow.video_id)
    )
    rows = session.execute(statement).all()
    return tuple(WakeUp(row.id, row.model, row.priority, row.video_id) for row in rows if row.waits == 0)


@transactional
def fail_run(session: Session, claim: Claim, problem: dict[str, Any], *, retry: bool, backoff_s: float) -> bool:
    """End the attempt with an error: tried again later while `retry` and attempts are left. False: fenced off."""
    will_retry = retry and claim.attempt < claim.max_attempts
    values = {
        "state": RunState.QUEUED if will_retry else RunState.FAILED,
        "error": problem,
        "lease_until": None,
        "dispatched_at": None,
        "available_at": _seconds_from_now(backoff_s * 2 ** (claim.attempt - 1)) if will_retry else func.now(),
        "finished_at": None if will_retry else func.now(),
        "updated_at": func.now(),
    }
    statement = update(RunRow).where(*_owned_by(claim)).values(values).returning(RunRow.id)
    if session.scalars(statement).one_or_none() is None:
        return False
    if not will_retry:
        skip_dependants(session, claim.run_id, problem)
    return True


def skip_dependants(session: Session, run_id: str, problem: dict[str, Any]) -> None:
    """Skip every run that waits for a failed run, directly or through another: it can never start."""
    tree = select(NeedRow.run_id).where(NeedRow.needs_run_id == run_id).cte(recursive=True)
    tree = tree.union(select(NeedRow.run_id).join(tree, NeedRow.needs_run_id == tree.c.run_id))
    session.execute(
        update(RunRow)
        .where(RunRow.id.in_(select(tree.c.run_id)), RunRow.state == RunState.WAITING)
        .values(state=RunState.SKIPPED, error=problem, finished_at=func.now(), updated_at=func.now())
    )


@transactional
def acknowledge_cancel(session: Session, claim: Claim) -> RunState | None:
    """The work has stopped after a cancel. Wanted again meanwhile: back to the queue. None: fenced off."""
    wanted_again = ~RunRow.cancel_requested
    statement = (
        update(RunRow)
        .where(*_owned_by(claim))
        .values(
            state=case((wanted_again, RunState.QUEUED), else_=RunState.CANCELLED),
            attempt=case((wanted_again, RunRow.attempt - 1), else_=RunRow.attempt),
            finished_at=case((wanted_again, None), else_=func.now()),
            dispatched_at=None,
            lease_until=None,
            eta_s=None,
            updated_at=func.now(),
        )
        .returning(RunRow.state)
    )
    state = session.scalars(statement).one_or_none()
    return RunState(state) if state else None


@transactional
def requeue_run(session: Session, claim: Claim) -> WakeUp | None:
    """A stopping worker gives its run back, the attempt not counted. None: fenced off, or cancelled meanwhile."""
    statement = (
        update(RunRow)
        .where(*_owned_by(claim))
        .values(
            state=case((RunRow.cancel_requested, RunState.CANCELLED), else_=RunState.QUEUED),
            finished_at=case((RunRow.cancel_requested, func.now()), else_=None),
            attempt=RunRow.attempt - 1,
            dispatched_at=func.now(),
            lease_until=None,
            eta_s=None,
            updated_at=func.now(),
        )
        .returning(RunRow.state, RunRow.priority)
    )
    row = session.execute(statement).one_or_none()
    if row is None or row.state != RunState.QUEUED:
        return None
    return WakeUp(claim.run_id, claim.model, row.priority, claim.video.id)


def _owned_by(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return RunRow.id == claim.run_id, RunRow.fence == claim.fence, RunRow.state == RunState.RUNNING


def _seconds_from_now(seconds: float) -> ColumnElement[Any]:
    return func.now() + timedelta(seconds=seconds)
