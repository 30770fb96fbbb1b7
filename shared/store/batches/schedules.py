"""Schedules: edited while the system runs. A slot is a row with a unique key, so that it fires once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile

from sqlalchemy import func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.errors import Conflict, NotFound, SceneworksError
from shared.store.batches import batches, progress
from shared.store.batches.batches import NewBatch
from shared.store.transaction import transactional
from shared.tables import ScheduleRow, SlotRow
from shared.values import new_id
from shared.values.batches import Batch, CatchUpPolicy, Workload
from shared.values.schedules import Schedule, Slot
from shared.values.timetable import Timetable

MISSED_AFTER = timedelta(seconds=90)
"""A slot that is later than this was missed: the rule of catching up says what becomes of it."""
MAX_CATCH_UP_SLOTS = 100
"""Slots of one schedule that a tick makes up for at most; the next tick goes on."""
MAX_LAST_SLOTS = 10


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """A validated request for a schedule."""

    name: str
    timetable: Timetable
    work: Workload
    catch_up: CatchUpPolicy = "once"


@dataclass(frozen=True, slots=True)
class SettledSlot:
    """A slot that was fired or skipped."""

    schedule_id: str
    due_at: datetime
    batch_id: str | None
    videos: int
    reason: str | None


@transactional
def create_schedule(session: Session, request: NewSchedule, now: datetime) -> Schedule:
    """Create a schedule; its first slot is after now. Conflict when the name is taken."""
    row = ScheduleRow(id=new_id("sch"), anchor_at=now)
    _write_row(row, request, now)
    session.add(row)
    _flush_unique_name(session)
    return _load_schedule(session, row)


@transactional
def update_schedule(session: Session, schedule_id: str, request: NewSchedule, now: datetime) -> Schedule:
    """Change the times or the work of a schedule from now on; NotFound, Conflict. Earlier batches stay as they are."""
    row = _get_row(session, schedule_id, lock=True)
    _write_row(row, request, now)
    row.updated_at = now
    _flush_unique_name(session)
    return _load_schedule(session, row)


def _write_row(row: ScheduleRow, request: NewSchedule, now: datetime) -> None:
    timetable = request.timetable
    row.name, row.catch_up, row.work = request.name, request.catch_up, request.work.to_dict()
    row.cron, row.every_s, row.timezone = timetable.cron, timetable.every_s, timetable.timezone
    row.anchor_at = timetable.anchor
    row.next_at = timetable.next_slot(now)


def _flush_unique_name(session: Session) -> None:
    try:
        session.flush()
    except IntegrityError:
        raise Conflict("There is a schedule of that name.") from None


@transactional
def get_schedule(session: Session, schedule_id: str) -> Schedule:
    """One schedule with its latest slots; NotFound."""
    return _load_schedule(session, _get_row(session, schedule_id))


@transactional
def list_schedules(session: Session, *, limit: int, after: tuple[datetime, str] | None = None) -> list[Schedule]:
    """Schedules, newest first, that come after the (created_at, id) given."""
    statement = select(ScheduleRow).order_by(ScheduleRow.created_at.desc(), ScheduleRow.id.desc()).limit(limit)
    if after:
        statement = statement.where(tuple_(ScheduleRow.created_at, ScheduleRow.id) < after)
    return [_load_schedule(session, row) for row in session.scalars(statement)]


@transactional
def delete_schedule(session: Session, schedule_id: str) -> None:
    """Delete a schedule; its batches stay. NotFound."""
    session.delete(_get_row(session, schedule_id, lock=True))


@transactional
def pause_schedule(session: Session, schedule_id: str) -> Schedule:
    """Stop firing slots; batches that were created continue."""
    row = _get_row(session, schedule_id, lock=True)
    row.paused_at = row.paused_at or session.scalars(select(func.now())).one()
    return _load_schedule(session, row)


@transactional
def resume_schedule(session: Session, schedule_id: str, now: datetime) -> Schedule:
    """Fire again from the next slot on. Slots that passed during the pause are not caught up: it was a decision."""
    row = _get_row(session, schedule_id, lock=True)
    if row.paused_at is not None:
        row.paused_at, row.next_at = None, build_timetable(row).next_slot(now)
    return _load_schedule(session, row)


@transactional
def run_schedule_now(session: Session, schedule_id: str, now: datetime) -> Batch:
    """Create the batch of a schedule now, outside its timetable. Conflict when there is nothing to do."""
    row = _get_row(session, schedule_id, lock=True)
    batch, video_count = batches.create_in(session, _build_batch_request(row, now))
    if not video_count:
        raise Conflict("There is nothing to do: no video is meant, or all of it is done.")
    return progress.load_batches(session, [batch])[0]


# The tick -------------------------------------------------------------------------------------------------------------


@transactional
def list_due_schedules(session: Session, now: datetime) -> list[str]:
    """List schedules with a slot that is due."""
    statement = select(ScheduleRow.id).where(ScheduleRow.paused_at.is_(None), ScheduleRow.next_at <= now)
    return list(session.scalars(statement.order_by(ScheduleRow.next_at, ScheduleRow.id)))


@transactional
def fire_schedule(session: Session, schedule_id: str, now: datetime) -> list[SettledSlot]:
    """Fire or skip the due slots of a schedule: batch, slot row and next time in one transaction.

    A second beat finds the row locked, or moved on; a restart finds either everything or nothing; and a clock that was
    set back meets slots that are there already.
    """
    statement = select(ScheduleRow).where(ScheduleRow.id == schedule_id).with_for_update(skip_locked=True)
    row = session.scalars(statement).one_or_none()
    if row is None or row.paused_at is not None or row.next_at > now:
        return []
    timetable = build_timetable(row)
    due_slots = [row.next_at, *takewhile(lambda slot: slot <= now, timetable.slots_after(row.next_at))]
    settled = due_slots[:MAX_CATCH_UP_SLOTS] if row.catch_up == "all" else due_slots
    row.next_at = timetable.next_slot(settled[-1])
    skipped = {slot: reason for slot in settled if (reason := _skip_reason(slot, settled[-1], row.catch_up, now))}
    return [fired for slot in settled if (fired := _settle_slot(session, row, slot, skipped.get(slot)))]


def _skip_reason(slot: datetime, latest: datetime, catch_up: str, now: datetime) -> str | None:
    """Return why a missed slot is skipped; None: it fires."""
    if catch_up == "all" or now - slot <= MISSED_AFTER:
        return None
    if catch_up == "once" and slot == latest:
        return None
    return "missed" if catch_up == "skip" else "missed: made up for by the latest one"


def _settle_slot(session: Session, row: ScheduleRow, slot: datetime, skipped: str | None) -> SettledSlot | None:
    """Insert the row of a slot, and its batch if it fires. None when another process already did."""
    outcome = "skipped" if skipped else "fired"
    statement = (
        insert(SlotRow)
        .values(schedule_id=row.id, due_at=slot, outcome=outcome, reason=skipped)
        .on_conflict_do_nothing()
        .returning(SlotRow)
    )
    slot_row = session.scalars(statement).one_or_none()
    if slot_row is None or skipped:
        return SettledSlot(row.id, slot, None, 0, skipped) if slot_row else None
    video_count, batch = 0, None
    try:
        with session.begin_nested():
            batch, video_count = batches.create_in(session, _build_batch_request(row, slot))
            slot_row.batch_id = batch.id
            if not video_count:
                batch.fed_at = session.scalars(select(func.now())).one()
    except SceneworksError as error:  # a model or a parameter that is no longer on the catalog
        slot_row.outcome, slot_row.reason, batch = "skipped", error.detail, None
    return SettledSlot(row.id, slot, batch.id if batch else None, video_count, slot_row.reason)


def _build_batch_request(row: ScheduleRow, slot: datetime) -> NewBatch:
    return NewBatch(row.name, Workload.from_dict(row.work), kind="schedule", schedule_id=row.id, due_at=slot)


def build_timetable(row: ScheduleRow) -> Timetable:
    """Build the timetable of a schedule."""
    return Timetable(row.cron, row.every_s, row.timezone, row.anchor_at)


def _get_row(session: Session, schedule_id: str, *, lock: bool = False) -> ScheduleRow:
    row = session.get(ScheduleRow, schedule_id, with_for_update=lock)
    if row is None:
        raise NotFound("There is no such schedule.")
    return row


def _load_schedule(session: Session, row: ScheduleRow) -> Schedule:
    session.flush()
    session.refresh(row)
    latest = select(SlotRow).where(SlotRow.schedule_id == row.id).order_by(SlotRow.due_at.desc()).limit(MAX_LAST_SLOTS)
    return Schedule(
        id=row.id,
        name=row.name,
        timetable=build_timetable(row),
        work=Workload.from_dict(row.work),
        catch_up=row.catch_up,
        next_at=row.next_at,
        paused_at=row.paused_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        last_slots=_to_slots(list(session.scalars(latest))),
    )


def _to_slots(rows: Sequence[SlotRow]) -> tuple[Slot, ...]:
    return tuple(Slot(row.due_at, row.outcome, row.reason, row.batch_id, row.fired_at) for row in rows)
