"""Batches: the same work on many films, made in one call; paused, resumed, cancelled, and what failed tried again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apiflask import APIBlueprint
from pydantic import Field

from api.archive.asked import BatchBody, check_can_run, work_of
from api.archive.records import BatchPage, BatchRecord, ItemPage, batch_record
from api.errors import Query, bad_query, page, problems, read_token
from api.service.catalog import check_models_open
from api.service.health import services
from api.service.waiting import MAX_WAIT_S, until_ended
from shared.errors import Conflict, InvalidRequest, ModelUnavailable, NotFound, WeightsCorrupt, WeightsMissing
from shared.log import logger
from shared.store import videos
from shared.store.archive import batches
from shared.store.archive.batches import NewBatch
from shared.values import JobState
from shared.values.archive.batches import Batch, BatchState, Item

log = logger(__name__)
bp = APIBlueprint("batches", __name__, url_prefix="/v1/batches", tag="Batches")

ITEM_STATES = ("waiting", *(state.value for state in JobState), "refused", "forgotten")
REFUSED = (InvalidRequest, NotFound, ModelUnavailable, WeightsMissing, WeightsCorrupt)


class BatchesQuery(Query):
    """Which batches."""

    state: str | None = Field(None, description="States, comma separated, such as `failed,running`.")
    schedule_id: str | None = None
    limit: int = Field(50, ge=1, le=500)
    page_token: str | None = None


class ShowQuery(Query):
    """Whether to wait."""

    wait: float = Field(0, ge=0, le=MAX_WAIT_S, description="Seconds to wait for the end of the batch.")


class ItemsQuery(Query):
    """Which films."""

    state: str | None = Field(None, description=f"States, comma separated: {', '.join(ITEM_STATES)}.")
    limit: int = Field(50, ge=1, le=500)
    page_token: str | None = None


def headers_of(batch: Batch) -> dict[str, str]:
    """`Retry-After` while there is something to come back for."""
    if batch.state.ended:
        return {}
    return {"Retry-After": str(round(min(30.0, max(1.0, (batch.eta_s or 0) / 10))))}


@bp.post("")
@bp.input(BatchBody, arg_name="body")
@bp.output(BatchRecord, 202, description="In the ledger; its jobs follow as its cap lets them. `Location` says where.")
@bp.doc(responses=problems(*REFUSED))
def create(body: BatchBody) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Ask for the same models on many videos.

    Each video of the selection gets a job; runs that are done already are shared. 400 when no video is meant.
    """
    work = work_of(body)
    check_can_run(work)
    return accepted(batches.create(services().engine, NewBatch(body.title, work)))


def accepted(batch: Batch) -> tuple[dict[str, Any], int, dict[str, str]]:
    """The answer for a batch that was just made."""
    log.info("batch.created", batch=batch.id, kind=batch.kind, videos=batch.videos)
    said = batch_record(batch)
    return said, 202, headers_of(batch) | {"Location": said["urls"]["self"]}


@bp.get("")
@bp.input(BatchesQuery, location="query", arg_name="query")
@bp.output(BatchPage)
@bp.doc(responses=problems(InvalidRequest))
def index(query: BatchesQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """List batches, newest first."""
    after = read_token("batches", query.page_token, (datetime, str))
    states = None if query.state is None else {BatchState(name) for name in _states(query.state, tuple(BatchState))}
    found = batches.page(
        services().engine, limit=query.limit + 1, after=after, schedule_id=query.schedule_id, states=states
    )
    items, token, headers = page("batches", found, query.limit, lambda batch: (batch.created_at, batch.id))
    return {"items": [batch_record(batch) for batch in items], "next_page_token": token}, headers


@bp.get("/<batch_id>")
@bp.input(ShowQuery, location="query", arg_name="query")
@bp.output(BatchRecord)
@bp.doc(responses=problems(NotFound, also={304: {"description": "Not modified since the ETag sent."}}))
def show(batch_id: str, query: ShowQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """One batch: its state follows from its jobs, its counts are videos by the state of their job.

    With `wait`, the answer comes when the batch has ended or the time is over. When too many callers wait already, it
    comes at once: heed `Retry-After`.
    """
    batch = batches.get(services().engine, batch_id)
    if query.wait and not batch.state.ended:
        batch = until_ended(batch, query.wait, lambda: batches.get(services().engine, batch_id))
    return batch_record(batch), headers_of(batch)


@bp.get("/<batch_id>/items")
@bp.input(ItemsQuery, location="query", arg_name="query")
@bp.output(ItemPage)
@bp.doc(responses=problems(InvalidRequest, NotFound))
def items_of(batch_id: str, query: ItemsQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """The videos of a batch in order, each with its job and its state."""
    after = read_token("items", query.page_token, (int,))
    states = None if query.state is None else _states(query.state, ITEM_STATES)
    found = batches.items(
        services().engine, batch_id, limit=query.limit + 1, after=after[0] if after else None, states=states
    )
    items, token, headers = page("items", found, query.limit, lambda item: (item.position,))
    names = {key: video.name for key, video in videos.several(services().engine, _videos(items)).items()}
    return {"items": [_item(item, names) for item in items], "next_page_token": token}, headers


@bp.post("/<batch_id>/pause")
@bp.output(BatchRecord)
@bp.doc(responses=problems(NotFound, Conflict))
def pause(batch_id: str) -> dict[str, Any]:
    """Start no more of its jobs; those that have started go on. 409 when it has ended."""
    batch = batches.pause(services().engine, batch_id)
    log.info("batch.paused", batch=batch_id)
    return batch_record(batch)


@bp.post("/<batch_id>/resume")
@bp.output(BatchRecord)
@bp.doc(responses=problems(NotFound, Conflict))
def resume(batch_id: str) -> dict[str, Any]:
    """Go on with the rest. 409 when it was cancelled."""
    batch = batches.resume(services().engine, batch_id)
    log.info("batch.resumed", batch=batch_id)
    return batch_record(batch)


@bp.post("/<batch_id>/cancel")
@bp.output(BatchRecord)
@bp.doc(responses=problems(NotFound, Conflict))
def cancel(batch_id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Let go of everything that is not done; what is done stays. 409 when it has ended."""
    batch = batches.cancel(services().engine, batch_id)
    log.info("batch.cancelled", batch=batch_id, state=batch.state.value)
    return batch_record(batch), headers_of(batch)


@bp.post("/<batch_id>/retry")
@bp.output(BatchRecord, 202)
@bp.doc(responses=problems(NotFound, Conflict, ModelUnavailable))
def retry(batch_id: str) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Run what failed once more, and what was refused, under the same cap; what is done stays.

    409 when nothing has failed, or the batch was cancelled.
    """
    services().backlog.check()
    models = [model for model, _ in batches.get(services().engine, batch_id).work.analyses]
    check_models_open(services().engine, models)
    batch = batches.retry(services().engine, batch_id)
    log.info("batch.retried", batch=batch_id)
    return batch_record(batch), 202, headers_of(batch)


def _states(text: str, known: tuple[str, ...]) -> list[str]:
    names = text.split(",")
    if set(names) - set(known):
        raise bad_query("state", "unknown_state", f"States are: {', '.join(known)}.")
    return names


def _videos(items: list[Item]) -> set[str]:
    return {item.video_id for item in items}


def _item(item: Item, names: dict[str, str]) -> dict[str, Any]:
    job = None if item.job_id is None else f"/v1/jobs/{item.job_id}"
    urls = {"video": f"/v1/videos/{item.video_id}", "job": job}
    return item.record() | {"name": names.get(item.video_id, ""), "urls": urls}
