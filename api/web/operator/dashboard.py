"""`/operator`: workers, queues, failures, batches, schedules and sources on one page, a button for each decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

from apiflask import APIBlueprint
from flask import Response, redirect, render_template, request

from api.batches import schedule_service, service as batch_service
from api.batches.schedule_service import CATCH_UP_RULES
from api.http.context import get_services
from api.http.paging import paginate_items, read_page_token
from api.http.strict_json import check_text
from api.operations import service as operations_service
from api.videos import source_service
from shared.catalog import CATALOG
from shared.errors import NotFound, Problem
from shared.store import workers
from shared.store.batches import batches, schedules
from shared.store.operations import failures
from shared.store.runs import queues
from shared.store.runs.queues import QueueMode
from shared.store.videos import sources
from shared.store.workers import ActiveRun
from shared.values import Worker
from shared.values.batches import Batch
from shared.values.schedules import Schedule
from shared.values.timetable import load_zone

bp = APIBlueprint("board", __name__, enable_openapi=False, url_prefix="/operator")

BATCHES_PER_PAGE = 12
"""On one page of the list."""
MAX_SCHEDULES = 100
DASHBOARD_SLOTS = 3
QUEUE_MODES: tuple[QueueMode, ...] = get_args(QueueMode)
Action = Callable[[str], Any]
BATCH_ACTIONS: dict[str, Action] = {
    "pause": batch_service.pause_batch, "resume": batch_service.resume_batch, "cancel": batch_service.cancel_batch,
    "retry": batch_service.retry_batch,
}  # fmt: skip
SCHEDULE_ACTIONS: dict[str, Action] = {
    "pause": schedule_service.pause_schedule, "resume": schedule_service.resume_schedule,
    "run": schedule_service.run_schedule, "delete": schedule_service.delete_schedule,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SlotTime:
    """The time of a slot as text: in the zone of the schedule, and in UTC."""

    local: str
    utc: str


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker with what it does, what it serves, and what it cannot serve."""

    worker: Worker
    active_run: ActiveRun | None
    serves: tuple[str, ...]
    model_errors: tuple[tuple[str, Problem], ...]


@bp.get("")
def show_dashboard() -> str:
    """Show the dashboard."""
    engine = get_services().engine
    after = read_page_token("batches", request.args.get("page_token"), (datetime, str))
    listed, older, _ = paginate_items(
        "batches",
        batches.list_batches(engine, limit=BATCHES_PER_PAGE + 1, after=after),
        BATCHES_PER_PAGE,
        lambda batch: (batch.created_at, batch.id),
    )
    known_workers = workers.list_workers(engine)
    return render_template(
        "dashboard.html",
        workers=list_workers(known_workers),
        queues=[
            (queue, sum(worker.serves_model(queue.model) for worker in known_workers))
            for queue in queues.list_queues(engine)
        ],
        failures=failures.list_failure_groups(engine),
        batches=listed,
        older=older,
        first=after is None,
        schedules=[(row, list_next_slots(row)) for row in schedules.list_schedules(engine, limit=MAX_SCHEDULES)],
        sources=sources.list_sources(engine),
        rules=CATCH_UP_RULES,
        menu=CATALOG,
        verbs=list_batch_actions,
    )


def list_workers(known_workers: Sequence[Worker]) -> list[WorkerStatus]:
    """Workers, those that are live first."""
    runs = workers.get_active_runs(
        get_services().engine, [worker.run_id for worker in known_workers if worker.run_id and worker.live]
    )
    statuses = [
        WorkerStatus(
            worker,
            runs.get(worker.run_id or ""),
            tuple(offer["model"] for offer in worker.models if not offer["error"]),
            tuple((offer["model"], offer["error"]) for offer in worker.models if offer["error"]),
        )
        for worker in known_workers
    ]
    return sorted(statuses, key=lambda status: not status.worker.live)


def list_next_slots(schedule: Schedule, count: int = DASHBOARD_SLOTS) -> list[SlotTime]:
    """The next slots of a schedule; none while it is paused."""
    if schedule.paused_at is not None:
        return []
    now = datetime.now(UTC)
    overdue = [schedule.next_at] if schedule.next_at <= now else []
    return [
        format_slot_time(slot, schedule.timetable.timezone)
        for slot in [*overdue, *schedule.timetable.next_slots(now, count)][:count]
    ]


def format_slot_time(moment: datetime, timezone: str) -> SlotTime:
    """A moment in a zone and in UTC."""
    local = moment.astimezone(load_zone(timezone))
    return SlotTime(f"{local:%a %Y-%m-%d %H:%M} {local.tzname()}", f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}")


def list_batch_actions(batch: Batch) -> list[str]:
    """List the actions that the state of a batch allows."""
    actions = []
    if not batch.state.has_ended and batch.cancelled_at is None:
        actions += ["resume"] if batch.paused_at else ["pause"] if batch.counts.get("waiting") else []
        actions.append("cancel")
    if batch.counts.get("failed") or batch.counts.get("refused"):
        actions.append("retry")
    return actions


def redirect_to(location: str) -> Response:
    """Redirect to a GET of that address."""
    response = redirect(location, 303)
    assert isinstance(response, Response)  # noqa: S101 (Flask makes it of its own class)
    return response


# Actions --------------------------------------------------------------------------------------------------------------


@bp.post("/queues/<model>/<mode>")
def set_queue_mode(model: str, mode: str) -> Response:
    """Pause, drain or open the queue of a model."""
    queue_mode = next((known_mode for known_mode in QUEUE_MODES if known_mode == mode), None)
    if queue_mode is None:
        raise NotFound("There is nothing at this address.")
    operations_service.change_queue_mode(model, queue_mode)
    return redirect_to("/operator#queues")


@bp.post("/failures/retry")
def retry_failures() -> Response:
    """Try again what failed with a code."""
    code, model = (request.form.get(name, "") for name in ("code", "model"))
    check_text(code + model)
    operations_service.retry_failures(code, model)
    return redirect_to("/operator#failures")


@bp.post("/batches/<batch_id>/<verb>")
def act_on_batch(batch_id: str, verb: str) -> Response:
    """Pause, resume, cancel a batch, or try again what has failed of it; as the API does."""
    _find_action(BATCH_ACTIONS, verb)(batch_id)
    return redirect_to(f"/operator/batches/{batch_id}" if "from" in request.form else "/operator#batches")


@bp.post("/schedules/<schedule_id>/<verb>")
def act_on_schedule(schedule_id: str, verb: str) -> Response:
    """Pause, resume or delete a schedule, or run it now; as the API does."""
    _find_action(SCHEDULE_ACTIONS, verb)(schedule_id)
    return redirect_to("/operator#batches" if verb == "run" else "/operator#schedules")


@bp.post("/sources/<source_id>/scan")
def request_scan(source_id: str) -> Response:
    """Ask for a scan."""
    source_service.request_scan(source_id)
    return redirect_to("/operator#sources")


def _find_action(actions: dict[str, Action], verb: str) -> Action:
    if verb not in actions:
        raise NotFound("There is nothing at this address.")
    return actions[verb]
