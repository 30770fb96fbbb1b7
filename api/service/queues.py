"""The queue of each model: how it stands, and what an operator decides about it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from apiflask import APIBlueprint
from pydantic import Field

from api.errors import Body, Record, problems
from api.service.health import services
from shared.catalog import MENU
from shared.errors import InvalidRequest, NotFound
from shared.log import logger
from shared.store.archive import queues
from shared.store.archive.queues import Mode, Queue

log = logger(__name__)
bp = APIBlueprint("queues", __name__, url_prefix="/v1/queues", tag="Models and workers")


class ModeBody(Body):
    """What is decided."""

    mode: Mode = Field(
        description="`paused`: no run of it starts. `draining`: what is queued is done, new jobs are refused (503), "
        "batches wait."
    )


class QueueRecord(Record):
    """The queue of one model."""

    model: str
    mode: Literal["open", "paused", "draining"]
    since: datetime | None = Field(description="Since when it is not open.")
    depth: int = Field(description="Runs that are queued.")
    running: int
    waiting: int = Field(description="Runs that wait for a run of another model.")
    oldest_at: datetime | None = Field(description="Since when the oldest queued run has been there.")
    wait_s: float | None = Field(description="Median wait of the runs that started in the last hour.")


class QueueList(Record):
    """The queues, in the order of the menu."""

    items: list[QueueRecord]


@bp.get("")
@bp.output(QueueList)
def index() -> dict[str, Any]:
    """List the queues with their depth, age and mode."""
    return {"items": [queue.record() for queue in queues.all(services().engine)]}


@bp.put("/<model>")
@bp.input(ModeBody, arg_name="body")
@bp.output(QueueRecord)
@bp.doc(responses=problems(InvalidRequest, NotFound))
def decide(model: str, body: ModeBody) -> dict[str, Any]:
    """Pause, drain or open the queue of a model. Runs that have started go on."""
    return decided(model, body.mode).record()


def decided(model: str, mode: Mode) -> Queue:
    """The queue of a model in that mode from now on; NotFound."""
    if model not in MENU:
        raise NotFound(f"There is no model of that name. Models: {', '.join(MENU)}.")
    queue = queues.set_mode(services().engine, model, mode)
    log.info("queue.decided", model=model, mode=mode)
    return queue
