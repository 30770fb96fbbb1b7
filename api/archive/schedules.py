"""Schedules: when an archive is worked on; edited while the system runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from apiflask import APIBlueprint
from pydantic import Field

from api.archive.asked import ScheduleBody, check_can_run, together, work_of
from api.archive.batches import REFUSED, accepted
from api.archive.records import BatchRecord, SchedulePage, ScheduleRecord
from api.errors import Query, page, problems, read_token
from api.service.health import services
from shared.errors import Conflict, InvalidRequest, ModelUnavailable, NotFound, WeightsCorrupt, WeightsMissing
from shared.log import logger
from shared.store.archive import schedules
from shared.store.archive.schedules import NewSchedule
from shared.values import stamp
from shared.values.archive.schedules import Schedule
from shared.values.archive.timetable import Timetable

log = logger(__name__)
bp = APIBlueprint("schedules", __name__, url_prefix="/v1/schedules", tag="Schedules")

COMING = 5
RULES = {
    "skip": "Slots that passed while nothing ran are left out.",
    "once": "Slots that passed while nothing ran are made up for by one batch, that of the latest of them.",
    "all": "Each slot that passed while nothing ran is made up for.",
}


class SchedulesQuery(Query):
    """Which page."""

    limit: int = Field(50, ge=1, le=500)
    page_token: str | None = None


def record(schedule: Schedule) -> dict[str, Any]:
    """JSON form with the next slots and links."""
    place, first = f"{bp.url_prefix}/{schedule.id}", schedule.next_at
    coming = [] if schedule.paused_at else [first, *schedule.timetable.coming(first, COMING - 1)]
    urls = {name: f"{place}/{name}" for name in ("pause", "resume", "run")}
    return schedule.record() | {
        "catch_up_rule": RULES[schedule.catch_up],
        "coming": [stamp(slot) for slot in coming],
        "urls": {"self": place, "batches": f"/v1/batches?schedule_id={schedule.id}", **urls},
    }


@bp.post("")
@bp.input(ScheduleBody, arg_name="body")
@bp.output(ScheduleRecord, 201, description="Made; `coming` says when it fires. `Location` says where.")
@bp.doc(responses=problems(*REFUSED, Conflict))
def create(body: ScheduleBody) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Make a schedule: cron or an interval in a time zone, and what is then done with which videos.

    A slot makes a batch of the videos that are meant at that moment and have something left to do.
    """
    schedule = record(made(body))
    return schedule, 201, {"Location": schedule["urls"]["self"]}


def made(body: ScheduleBody) -> Schedule:
    """The schedule that is asked for, in the ledger; as a job: InvalidRequest, NotFound, Conflict, ModelUnavailable."""
    now = datetime.now(UTC)
    schedule = schedules.create(services().engine, _asked(body, now), now)
    log.info("schedule.created", schedule=schedule.id, next_at=stamp(schedule.next_at))
    return schedule


@bp.get("")
@bp.input(SchedulesQuery, location="query", arg_name="query")
@bp.output(SchedulePage)
@bp.doc(responses=problems(InvalidRequest))
def index(query: SchedulesQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """List schedules, newest first."""
    after = read_token("schedules", query.page_token, (datetime, str))
    found = schedules.page(services().engine, limit=query.limit + 1, after=after)
    items, token, headers = page("schedules", found, query.limit, lambda one: (one.created_at, one.id))
    return {"items": [record(schedule) for schedule in items], "next_page_token": token}, headers


@bp.get("/<schedule_id>")
@bp.output(ScheduleRecord)
@bp.doc(responses=problems(NotFound))
def show(schedule_id: str) -> dict[str, Any]:
    """One schedule, with its next slots and what became of the last."""
    return record(schedules.get(services().engine, schedule_id))


@bp.put("/<schedule_id>")
@bp.input(ScheduleBody, arg_name="body")
@bp.output(ScheduleRecord)
@bp.doc(responses=problems(*REFUSED, Conflict))
def change(schedule_id: str, body: ScheduleBody) -> dict[str, Any]:
    """Replace what it says, from now on; what has been fired stays as it is.

    An interval that stays the same goes on in its rhythm.
    """
    return record(changed(schedule_id, body))


def changed(schedule_id: str, body: ScheduleBody) -> Schedule:
    """The schedule as it is asked for from now on; raises what `made` raises."""
    known, now = schedules.get(services().engine, schedule_id).timetable, datetime.now(UTC)
    anchor = known.anchor if body.every_s is not None and body.every_s == known.every_s else now
    schedule = schedules.change(services().engine, schedule_id, _asked(body, anchor), now)
    log.info("schedule.changed", schedule=schedule.id, next_at=stamp(schedule.next_at))
    return schedule


@bp.delete("/<schedule_id>")
@bp.doc(responses=problems(NotFound, also={204: {"description": "Forgotten; its batches stay."}}))
def remove(schedule_id: str) -> tuple[str, int]:
    """Forget a schedule. Batches that it has made go on."""
    schedules.delete(services().engine, schedule_id)
    log.info("schedule.removed", schedule=schedule_id)
    return "", 204


@bp.post("/<schedule_id>/pause")
@bp.output(ScheduleRecord)
@bp.doc(responses=problems(NotFound))
def pause(schedule_id: str) -> dict[str, Any]:
    """Let no slot fire until it is resumed; batches that it has made go on."""
    schedule = schedules.pause(services().engine, schedule_id)
    log.info("schedule.paused", schedule=schedule_id)
    return record(schedule)


@bp.post("/<schedule_id>/resume")
@bp.output(ScheduleRecord)
@bp.doc(responses=problems(NotFound))
def resume(schedule_id: str) -> dict[str, Any]:
    """Fire again from the next slot on; what the pause has passed over is not made up for."""
    schedule = schedules.resume(services().engine, schedule_id, datetime.now(UTC))
    log.info("schedule.resumed", schedule=schedule_id, next_at=stamp(schedule.next_at))
    return record(schedule)


@bp.post("/<schedule_id>/run")
@bp.output(BatchRecord, 202, description="The batch, as the next slot would make it.")
@bp.doc(responses=problems(NotFound, Conflict, ModelUnavailable, WeightsMissing, WeightsCorrupt))
def run(schedule_id: str) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Do it now, beside the timetable. 409 when there is nothing to do."""
    check_can_run(schedules.get(services().engine, schedule_id).work)
    return accepted(schedules.run_now(services().engine, schedule_id, datetime.now(UTC)))


def _asked(body: ScheduleBody, anchor: datetime) -> NewSchedule:
    """The schedule that is asked for; InvalidRequest names all faults at once."""
    timetable, work = together(lambda: Timetable(body.cron, body.every_s, body.timezone, anchor), lambda: work_of(body))
    check_can_run(work, new=False)
    return NewSchedule(body.name, timetable, work, body.catch_up)
