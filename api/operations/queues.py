"""Routes of the queues, one for each model: list them, change their mode."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from apiflask import APIBlueprint
from pydantic import Field

from api.http.context import get_services
from api.http.problems import document_problems
from api.http.schemas import Body, Record
from api.operations import service
from shared.errors import InvalidRequest, NotFound
from shared.store.runs import queues
from shared.store.runs.queues import QueueMode

bp = APIBlueprint("queues", __name__, url_prefix="/v1/queues", tag="Models and workers")


class QueueModeBody(Body):
    """The new mode."""

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
    """The queues, in the order of the catalog."""

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
    return service.change_queue_mode(model, body.mode).to_dict()
