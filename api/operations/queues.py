"""The queue of each model: how it stands, and what an operator decides about it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from apiflask import APIBlueprint
from pydantic import Field

from api.http.context import get_services
from api.http.problems import document_problems
from api.http.schemas import Body, Record
from shared.catalog import CATALOG
from shared.errors import InvalidRequest, NotFound
from shared.log import get_logger
from shared.store.runs import queues
from shared.store.runs.queues import ModelQueue, QueueMode

log = get_logger(__name__)
bp = APIBlueprint("queues", __name__, url_prefix="/v1/queues", tag="Models and workers")


class QueueModeBody(Body):
    """What is decided."""

    mode: QueueMode = Field(
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
def list_queues() -> dict[str, Any]:
    """List the queues with their depth, age and mode."""
    return {"items": [queue.to_dict() for queue in queues.list_queues(get_services().engine)]}


@bp.put("/<model>")
@bp.input(QueueModeBody, arg_name="body")
@bp.output(QueueRecord)
@bp.doc(responses=document_problems(InvalidRequest, NotFound))
def set_queue_mode(model: str, body: QueueModeBody) -> dict[str, Any]:
    """Pause, drain or open the queue of a model. Runs that have started go on."""
    return change_queue_mode(model, body.mode).to_dict()


def change_queue_mode(model: str, mode: QueueMode) -> ModelQueue:
    """The queue of a model in that mode from now on; NotFound."""
    if model not in CATALOG:
        raise NotFound(f"There is no model of that name. Models: {', '.join(CATALOG)}.")
    queue = queues.set_queue_mode(get_services().engine, model, mode)
    log.info("queue.decided", model=model, mode=mode)
    return queue
