"""The page of a schedule: when it is due, what became of its last slots, and the form that makes or changes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from apiflask import APIBlueprint
from flask import Response, request

from api.archive import schedules as routes
from api.archive.asked import ScheduleBody, work_of
from api.archive.schedules import RULES
from api.errors import read_json
from api.service.health import services
from api.web.operate import sheet
from api.web.operate.asking import drawn
from api.web.operate.board import coming, due, to
from api.web.operate.sheet import Given
from shared.errors import SceneworksError
from shared.store.archive import planning, schedules
from shared.values.archive.schedules import Schedule
from shared.values.archive.timetable import Timetable

bp = APIBlueprint("schedule", __name__, enable_openapi=False, url_prefix="/operator/schedules")

SLOTS = 5


@bp.get("/new")
def blank() -> str:
    """An empty form."""
    return _drawn(None, sheet.USUAL)


@bp.get("/<schedule_id>")
def show(schedule_id: str) -> str:
    """One schedule, and the form to change it."""
    known = schedules.get(services().engine, schedule_id)
    return _drawn(known, sheet.of_work(known.work) | sheet.of_timetable(known.timetable, known.name, known.catch_up))


@bp.post("/check")
def check() -> tuple[str, int]:
    """When it would be due, and what a slot would come to now; nothing is written."""
    given, known = request.form.to_dict(flat=False), _known()
    try:
        body = sheet.checked(ScheduleBody, sheet.schedule(given))
        now = datetime.now(UTC)
        timetable = Timetable(body.cron, body.every_s, body.timezone, now)
        plan = planning.dry_run(services().engine, work_of(body))
    except SceneworksError as error:
        return _drawn(known, given, faults=sheet.faults(error, given)), error.status
    slots = [due(slot, body.timezone) for slot in timetable.coming(now, SLOTS)]
    return _drawn(known, given, plan=plan, slots=slots, asked=body.model_dump_json()), 200


@bp.post("")
def save() -> Response:
    """The schedule that was shown."""
    body, known = sheet.checked(ScheduleBody, read_json(request.form.get("asked", "").encode())), _known()
    if known is None:
        routes.made(body)
    else:
        routes.changed(known.id, body)
    return to("/operator#schedules")


def _known() -> Schedule | None:
    """The schedule that the form is to change; NotFound."""
    schedule_id = request.form.get("schedule", "")
    return schedules.get(services().engine, schedule_id) if schedule_id else None


def _drawn(known: Schedule | None, given: Given, **more: Any) -> str:
    slots = [(due(slot.due_at, known.timetable.timezone), slot) for slot in known.last] if known else []
    return drawn(
        "schedule.html", given, known=known, coming=coming(known, SLOTS) if known else [], last=slots, rules=RULES,
        **more,
    )  # fmt: skip
