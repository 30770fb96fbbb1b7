"""Use cases of schedules: create, change, pause, resume, run, delete. JSON routes and pages both call them."""

from __future__ import annotations

from datetime import UTC, datetime

from api.admission import admit_batch, admit_plan
from api.batches.schemas import ScheduleBody, collect_faults, parse_work
from api.batches.service import log_created_batch
from api.http.context import get_services
from shared.log import get_logger
from shared.store.batches import schedules, selection
from shared.store.batches.schedules import NewSchedule
from shared.values import format_timestamp
from shared.values.batches import Batch
from shared.values.schedules import Schedule
from shared.values.timetable import Timetable

log = get_logger(__name__)

CATCH_UP_RULES = {
    "skip": "Slots that passed while nothing ran are left out.",
    "once": "Slots that passed while nothing ran are made up for by one batch, that of the latest of them.",
    "all": "Each slot that passed while nothing ran is made up for.",
}
"""What each catch-up policy does, for people."""


def create_schedule(body: ScheduleBody) -> Schedule:
    """Store a schedule; InvalidRequest, NotFound, Conflict, ModelUnavailable, WeightsMissing, WeightsCorrupt."""
    now = datetime.now(UTC)
    schedule = schedules.create_schedule(get_services().engine, _parse_schedule(body, now), now)
    log.info("schedule.created", schedule=schedule.id, next_at=format_timestamp(schedule.next_at))
    return schedule


def change_schedule(schedule_id: str, body: ScheduleBody) -> Schedule:
    """Replace a schedule from now on; raises what `create_schedule` raises."""
    current_timetable, now = schedules.get_schedule(get_services().engine, schedule_id).timetable, datetime.now(UTC)
    # An interval that stays the same keeps its anchor: an edit of the work must not shift the slots.
    anchor = current_timetable.anchor if body.every_s is not None and body.every_s == current_timetable.every_s else now
    schedule = schedules.update_schedule(get_services().engine, schedule_id, _parse_schedule(body, anchor), now)
    log.info("schedule.changed", schedule=schedule.id, next_at=format_timestamp(schedule.next_at))
    return schedule


def delete_schedule(schedule_id: str) -> None:
    """Delete a schedule; its batches go on. NotFound."""
    schedules.delete_schedule(get_services().engine, schedule_id)
    log.info("schedule.removed", schedule=schedule_id)


def pause_schedule(schedule_id: str) -> Schedule:
    """Fire no slot of a schedule until it is resumed; NotFound."""
    schedule = schedules.pause_schedule(get_services().engine, schedule_id)
    log.info("schedule.paused", schedule=schedule_id)
    return schedule


def resume_schedule(schedule_id: str) -> Schedule:
    """Fire the slots of a schedule again, from the next one on; NotFound."""
    schedule = schedules.resume_schedule(get_services().engine, schedule_id, datetime.now(UTC))
    log.info("schedule.resumed", schedule=schedule_id, next_at=format_timestamp(schedule.next_at))
    return schedule


def run_schedule(schedule_id: str) -> Batch:
    """Create the batch of a schedule now, beside its timetable; NotFound, and what `create_batch` raises."""
    work = schedules.get_schedule(get_services().engine, schedule_id).work
    admit_batch(selection.parse_analyses(work))
    batch = schedules.run_schedule_now(get_services().engine, schedule_id, datetime.now(UTC))
    log_created_batch(batch)
    return batch


def _parse_schedule(body: ScheduleBody, anchor: datetime) -> NewSchedule:
    """Read the schedule of a request; InvalidRequest names all faults at once."""
    timetable, work = collect_faults(
        lambda: Timetable(body.cron, body.every_s, body.timezone, anchor), lambda: parse_work(body)
    )
    admit_plan(selection.parse_analyses(work))
    return NewSchedule(body.name, timetable, work, body.catch_up)
