"""`/operator`: workers, queues, failures, batches, schedules and sources on one page, a button for each decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

from apiflask import APIBlueprint
from flask import Response, redirect, render_template, request

from api.archive import batches as batch_routes, failures as failure_routes, schedules as schedule_routes
from api.archive.schedules import RULES
from api.errors import check_text, page, read_token
from api.service.health import services
from api.service.queues import decided
from shared.catalog import MENU
from shared.errors import NotFound
from shared.log import logger
from shared.store import workers
from shared.store.archive import batches, failures, queues, schedules, sources
from shared.store.archive.queues import Mode
from shared.store.workers import AtHand
from shared.values import Worker
from shared.values.archive.batches import Batch
from shared.values.archive.schedules import Schedule
from shared.values.archive.timetable import zone

log = logger(__name__)
bp = APIBlueprint("board", __name__, enable_openapi=False, url_prefix="/operator")

BATCHES = 12
"""On one page of the list."""
SCHEDULES = 100
COMING = 3
MODES: tuple[Mode, ...] = get_args(Mode)
Verb = Callable[[str], Any]
ON_BATCHES: dict[str, Verb] = {
    "pause": batch_routes.pause, "resume": batch_routes.resume, "cancel": batch_routes.cancel,
    "retry": batch_routes.retry,
}  # fmt: skip
ON_SCHEDULES: dict[str, Verb] = {
    "pause": schedule_routes.pause, "resume": schedule_routes.resume, "run": schedule_routes.run,
    "delete": schedule_routes.remove,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Due:
    """A moment at which a schedule is due: in the words of its own zone, and in UTC."""

    local: str
    utc: str


@dataclass(frozen=True, slots=True)
class Serving:
    """A worker with what it does, what it serves, and what it cannot serve."""

    worker: Worker
    at_hand: AtHand | None
    serves: tuple[str, ...]
    faults: tuple[tuple[str, dict[str, Any]], ...]


@bp.get("")
def index() -> str:
    """How everything stands."""
    engine = services().engine
    after = read_token("batches", request.args.get("page_token"), (datetime, str))
    listed, older, _ = page(
        "batches", batches.page(engine, limit=BATCHES + 1, after=after), BATCHES, lambda one: (one.created_at, one.id)
    )
    heard = workers.all(engine)
    return render_template(
        "operator.html",
        workers=serving(heard),
        queues=[(queue, sum(worker.serves(queue.model) for worker in heard)) for queue in queues.all(engine)],
        failures=failures.all(engine),
        batches=listed,
        older=older,
        first=after is None,
        schedules=[(one, coming(one)) for one in schedules.page(engine, limit=SCHEDULES)],
        sources=sources.all(engine),
        rules=RULES,
        menu=MENU,
        verbs=verbs,
    )


def serving(heard: Sequence[Worker]) -> list[Serving]:
    """Workers, those that are live first."""
    runs = workers.at_hand(services().engine, [worker.run_id for worker in heard if worker.run_id and worker.live])
    found = [
        Serving(
            worker,
            runs.get(worker.run_id or ""),
            tuple(offer["model"] for offer in worker.models if not offer["error"]),
            tuple((offer["model"], offer["error"]) for offer in worker.models if offer["error"]),
        )
        for worker in heard
    ]
    return sorted(found, key=lambda one: not one.worker.live)


def coming(schedule: Schedule, count: int = COMING) -> list[Due]:
    """The next slots of a schedule; none while it is paused."""
    if schedule.paused_at is not None:
        return []
    now = datetime.now(UTC)
    late = [schedule.next_at] if schedule.next_at <= now else []
    return [due(slot, schedule.timetable.timezone) for slot in [*late, *schedule.timetable.coming(now, count)][:count]]


def due(moment: datetime, timezone: str) -> Due:
    """A moment in a zone and in UTC."""
    local = moment.astimezone(zone(timezone))
    return Due(f"{local:%a %Y-%m-%d %H:%M} {local.tzname()}", f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}")


def verbs(batch: Batch) -> list[str]:
    """What can be decided about a batch as it stands."""
    found = []
    if not batch.state.ended and batch.cancelled_at is None:
        found += ["resume"] if batch.paused_at else ["pause"] if batch.counts.get("waiting") else []
        found.append("cancel")
    if batch.counts.get("failed") or batch.counts.get("refused"):
        found.append("retry")
    return found


def to(place: str) -> Response:
    """Go on with a GET there."""
    response = redirect(place, 303)
    assert isinstance(response, Response)  # noqa: S101 (Flask makes it of its own class)
    return response


# Decisions ------------------------------------------------------------------------------------------------------------


@bp.post("/queues/<model>/<mode>")
def decide(model: str, mode: str) -> Response:
    """Pause, drain or open the queue of a model."""
    chosen = next((one for one in MODES if one == mode), None)
    if chosen is None:
        raise NotFound("There is nothing at this address.")
    decided(model, chosen)
    return to("/operator#queues")


@bp.post("/failures/retry")
def again() -> Response:
    """Try again what failed with a code."""
    code, model = (request.form.get(name, "") for name in ("code", "model"))
    check_text(code + model)
    failure_routes.retried(code, model)
    return to("/operator#failures")


@bp.post("/batches/<batch_id>/<verb>")
def on_batch(batch_id: str, verb: str) -> Response:
    """Pause, resume, cancel a batch, or try again what has failed of it; as the API does."""
    _known(ON_BATCHES, verb)(batch_id)
    return to(f"/operator/batches/{batch_id}" if "from" in request.form else "/operator#batches")


@bp.post("/schedules/<schedule_id>/<verb>")
def on_schedule(schedule_id: str, verb: str) -> Response:
    """Pause, resume or delete a schedule, or run it now; as the API does."""
    _known(ON_SCHEDULES, verb)(schedule_id)
    return to("/operator#batches" if verb == "run" else "/operator#schedules")


@bp.post("/sources/<source_id>/scan")
def scan(source_id: str) -> Response:
    """Ask for a scan."""
    sources.want(services().engine, source_id)
    log.info("source.wanted", source=source_id)
    return to("/operator#sources")


def _known(verbs: dict[str, Verb], verb: str) -> Verb:
    if verb not in verbs:
        raise NotFound("There is nothing at this address.")
    return verbs[verb]
