"""The page of a schedule: its next slots, the outcome of the last ones, and the form to create or change it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from apiflask import APIBlueprint
from flask import Response, request

from api.batches import schedule_service
from api.batches.schedule_service import CATCH_UP_RULES
from api.batches.schemas import ScheduleBody, parse_work
from api.http.context import get_services
from api.http.strict_json import read_json
from api.web.operator import form_parsing
from api.web.operator.batch_form import render_form
from api.web.operator.dashboard import format_slot_time, list_next_slots, redirect_to
from api.web.operator.form_parsing import FormValues
from shared.errors import SceneworksError
from shared.store.batches import schedules, selection
from shared.values.schedules import Schedule
from shared.values.timetable import Timetable

bp = APIBlueprint("schedule", __name__, enable_openapi=False, url_prefix="/operator/schedules")

FORM_SLOTS = 5


@bp.get("/new")
def show_empty_form() -> str:
    """An empty form."""
    return _render_schedule_form(None, form_parsing.DEFAULT_VALUES)


@bp.get("/<schedule_id>")
def show_schedule(schedule_id: str) -> str:
    """One schedule, and the form to change it."""
    stored = schedules.get_schedule(get_services().engine, schedule_id)
    return _render_schedule_form(
        stored,
        form_parsing.fill_from_work(stored.work)
        | form_parsing.fill_from_timetable(stored.timetable, stored.name, stored.catch_up),
    )


@bp.post("/check")
def preview_schedule() -> tuple[str, int]:
    """Preview the slots of a schedule and the batch of a slot now, without storing anything."""
    values, stored = request.form.to_dict(flat=False), _get_edited_schedule()
    try:
        body = form_parsing.validate_body(ScheduleBody, form_parsing.parse_schedule(values))
        now = datetime.now(UTC)
        timetable = Timetable(body.cron, body.every_s, body.timezone, now)
        plan = selection.dry_run(get_services().engine, parse_work(body))
    except SceneworksError as error:
        return _render_schedule_form(stored, values, faults=form_parsing.list_faults(error, values)), error.status
    slots = [format_slot_time(slot, body.timezone) for slot in timetable.next_slots(now, FORM_SLOTS)]
    return _render_schedule_form(stored, values, plan=plan, slots=slots, asked=body.model_dump_json()), 200


@bp.post("")
def save_schedule() -> Response:
    """Create or change the schedule of the preview."""
    body, stored = (
        form_parsing.validate_body(ScheduleBody, read_json(request.form.get("asked", "").encode())),
        _get_edited_schedule(),
    )
    if stored is None:
        schedule_service.create_schedule(body)
    else:
        schedule_service.change_schedule(stored.id, body)
    return redirect_to("/operator#schedules")


def _get_edited_schedule() -> Schedule | None:
    """The schedule that the form is to change; NotFound."""
    schedule_id = request.form.get("schedule", "")
    return schedules.get_schedule(get_services().engine, schedule_id) if schedule_id else None


def _render_schedule_form(stored: Schedule | None, values: FormValues, **more: Any) -> str:
    slots = (
        [(format_slot_time(slot.due_at, stored.timetable.timezone), slot) for slot in stored.last_slots]
        if stored
        else []
    )
    next_slots = list_next_slots(stored, FORM_SLOTS) if stored else []
    return render_form(
        "schedule.html", values, known=stored, coming=next_slots, last=slots, rules=CATCH_UP_RULES, **more
    )
