"""Routes of schedules: create, list, show, change, pause, resume, run, delete."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apiflask import APIBlueprint
from pydantic import Field

from api.batches import schedule_service
from api.batches.records import BatchRecord, SchedulePage, ScheduleRecord
from api.batches.routes import CREATE_ERRORS, build_created_response
from api.batches.schedule_service import CATCH_UP_RULES
from api.batches.schemas import ScheduleBody
from api.http.context import get_services
from api.http.paging import paginate_items, read_page_token
from api.http.problems import document_problems
from api.http.schemas import Query
from shared.errors import Conflict, InvalidRequest, ModelUnavailable, NotFound, WeightsCorrupt, WeightsMissing
from shared.store.batches import schedules
from shared.values import format_timestamp
from shared.values.schedules import Schedule

bp = APIBlueprint("schedules", __name__, url_prefix="/v1/schedules", tag="Schedules")

NEXT_SLOT_COUNT = 5


class SchedulesQuery(Query):
    """Which page."""

    limit: int = Field(50, ge=1, le=500)
    page_token: str | None = None


def build_schedule_record(schedule: Schedule) -> dict[str, Any]:
    """Build the JSON form with the next slots and links."""
    path, next_at = f"{bp.url_prefix}/{schedule.id}", schedule.next_at
    next_slots = [] if schedule.paused_at else [next_at, *schedule.timetable.next_slots(next_at, NEXT_SLOT_COUNT - 1)]
    urls = {name: f"{path}/{name}" for name in ("pause", "resume", "run")}
    return schedule.to_dict() | {
        "catch_up_rule": CATCH_UP_RULES[schedule.catch_up],
        "next_slots": [format_timestamp(slot) for slot in next_slots],
        "urls": {"self": path, "batches": f"/v1/batches?schedule_id={schedule.id}", **urls},
    }


@bp.post("")
@bp.input(ScheduleBody, arg_name="body")
@bp.output(ScheduleRecord, 201, description="Created; `next_slots` says when it fires. `Location` says where.")
@bp.doc(responses=document_problems(*CREATE_ERRORS, Conflict))
def create_schedule(body: ScheduleBody) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Create a schedule: cron or an interval in a time zone, and the work.

    A slot creates a batch of the videos that are selected at that moment and have something left to do.
    """
    schedule = build_schedule_record(schedule_service.create_schedule(body))
    return schedule, 201, {"Location": schedule["urls"]["self"]}


@bp.get("")
@bp.input(SchedulesQuery, location="query", arg_name="query")
@bp.output(SchedulePage)
@bp.doc(responses=document_problems(InvalidRequest))
def list_schedules(query: SchedulesQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """List schedules, newest first."""
    after = read_page_token("schedules", query.page_token, (datetime, str))
    schedule_rows = schedules.list_schedules(get_services().engine, limit=query.limit + 1, after=after)
    items, token, headers = paginate_items(
        "schedules", schedule_rows, query.limit, lambda schedule: (schedule.created_at, schedule.id)
    )
    return {"items": [build_schedule_record(schedule) for schedule in items], "next_page_token": token}, headers


@bp.get("/<schedule_id>")
@bp.output(ScheduleRecord)
@bp.doc(responses=document_problems(NotFound))
def show_schedule(schedule_id: str) -> dict[str, Any]:
    """One schedule, with its next slots and the outcome of the last ones."""
    return build_schedule_record(schedules.get_schedule(get_services().engine, schedule_id))


@bp.put("/<schedule_id>")
@bp.input(ScheduleBody, arg_name="body")
@bp.output(ScheduleRecord)
@bp.doc(responses=document_problems(*CREATE_ERRORS, Conflict))
def change_schedule(schedule_id: str, body: ScheduleBody) -> dict[str, Any]:
    """Replace a schedule from now on; slots that have fired stay as they are.

    An interval that is not changed keeps its slots.
    """
    return build_schedule_record(schedule_service.change_schedule(schedule_id, body))


@bp.delete("/<schedule_id>")
@bp.doc(responses=document_problems(NotFound, extra={204: {"description": "Deleted; its batches stay."}}))
def remove_schedule(schedule_id: str) -> tuple[str, int]:
    """Delete a schedule. Its batches go on."""
    schedule_service.delete_schedule(schedule_id)
    return "", 204


@bp.post("/<schedule_id>/pause")
@bp.output(ScheduleRecord)
@bp.doc(responses=document_problems(NotFound))
def pause_schedule(schedule_id: str) -> dict[str, Any]:
    """Fire no slot until the schedule is resumed; its batches go on."""
    return build_schedule_record(schedule_service.pause_schedule(schedule_id))


@bp.post("/<schedule_id>/resume")
@bp.output(ScheduleRecord)
@bp.doc(responses=document_problems(NotFound))
def resume_schedule(schedule_id: str) -> dict[str, Any]:
    """Fire again from the next slot on; slots that passed during the pause are left out."""
    return build_schedule_record(schedule_service.resume_schedule(schedule_id))


@bp.post("/<schedule_id>/run")
@bp.output(BatchRecord, 202, description="The batch, as the next slot would create it.")
@bp.doc(responses=document_problems(NotFound, Conflict, ModelUnavailable, WeightsMissing, WeightsCorrupt))
def run_schedule_now(schedule_id: str) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Start the work now, beside the timetable. 409 when there is nothing to do."""
    return build_created_response(schedule_service.run_schedule(schedule_id))
