"""Routes of batches, the same work on many videos: create, list, show, pause, resume, cancel, retry."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apiflask import APIBlueprint
from pydantic import Field

from api.batches import service
from api.batches.records import ITEM_STATES, BatchPage, BatchRecord, ItemPage, build_batch_record
from api.batches.schemas import BatchBody
from api.http.context import get_services
from api.http.long_poll import MAX_WAIT_S, wait_until_ended
from api.http.paging import paginate_items, read_page_token
from api.http.problems import bad_query, document_problems
from api.http.schemas import Query
from shared.errors import Conflict, InvalidRequest, ModelUnavailable, NotFound, WeightsCorrupt, WeightsMissing
from shared.store.batches import batches
from shared.store.videos import videos
from shared.values.batches import Batch, BatchItem, BatchState

bp = APIBlueprint("batches", __name__, url_prefix="/v1/batches", tag="Batches")

CREATE_ERRORS = (InvalidRequest, NotFound, ModelUnavailable, WeightsMissing, WeightsCorrupt)


class BatchesQuery(Query):
    """Which batches."""

    state: str | None = Field(None, description="States, comma separated, such as `failed,running`.")
    schedule_id: str | None = None
    limit: int = Field(50, ge=1, le=500)
    page_token: str | None = None


class BatchQuery(Query):
    """How long to wait."""

    wait: float = Field(0, ge=0, le=MAX_WAIT_S, description="Seconds to wait for the end of the batch.")


class ItemsQuery(Query):
    """Which videos of the batch."""

    state: str | None = Field(None, description=f"States, comma separated: {', '.join(ITEM_STATES)}.")
    limit: int = Field(50, ge=1, le=500)
    page_token: str | None = None


def build_poll_headers(batch: Batch) -> dict[str, str]:
    """Build `Retry-After` for a batch that has not ended."""
    if batch.state.has_ended:
        return {}
    return {"Retry-After": str(round(min(30.0, max(1.0, (batch.eta_s or 0) / 10))))}


@bp.post("")
@bp.input(BatchBody, arg_name="body")
@bp.output(BatchRecord, 202, description="Stored; its jobs follow as its cap allows. `Location` says where.")
@bp.doc(responses=document_problems(*CREATE_ERRORS))
def create_batch(body: BatchBody) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Run the same models on many videos.

    Each selected video gets a job; runs that are done already are shared. 400 when no video is selected.
    """
    return build_created_response(service.create_batch(body))


def build_created_response(batch: Batch) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Build the answer for a batch that was just created."""
    record = build_batch_record(batch)
    return record, 202, build_poll_headers(batch) | {"Location": record["urls"]["self"]}


@bp.get("")
@bp.input(BatchesQuery, location="query", arg_name="query")
@bp.output(BatchPage)
@bp.doc(responses=document_problems(InvalidRequest))
def list_batches(query: BatchesQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """List batches, newest first."""
    after = read_page_token("batches", query.page_token, (datetime, str))
    states = (
        None if query.state is None else {BatchState(name) for name in _parse_states(query.state, tuple(BatchState))}
    )
    batch_rows = batches.list_batches(
        get_services().engine, limit=query.limit + 1, after=after, schedule_id=query.schedule_id, states=states
    )
    items, token, headers = paginate_items(
        "batches", batch_rows, query.limit, lambda batch: (batch.created_at, batch.id)
    )
    return {"items": [build_batch_record(batch) for batch in items], "next_page_token": token}, headers


@bp.get("/<batch_id>")
@bp.input(BatchQuery, location="query", arg_name="query")
@bp.output(BatchRecord)
@bp.doc(responses=document_problems(NotFound, extra={304: {"description": "Not modified since the ETag sent."}}))
def show_batch(batch_id: str, query: BatchQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """One batch: its state follows from its jobs, its counts are videos by the state of their job.

    With `wait`, the answer comes when the batch has ended or the time is over. When too many callers wait already, it
    comes at once: heed `Retry-After`.
    """
    batch = batches.get_batch(get_services().engine, batch_id)
    if query.wait and not batch.state.has_ended:
        batch = wait_until_ended(batch, query.wait, lambda: batches.get_batch(get_services().engine, batch_id))
    return build_batch_record(batch), build_poll_headers(batch)


@bp.get("/<batch_id>/items")
@bp.input(ItemsQuery, location="query", arg_name="query")
@bp.output(ItemPage)
@bp.doc(responses=document_problems(InvalidRequest, NotFound))
def list_batch_items(batch_id: str, query: ItemsQuery) -> tuple[dict[str, Any], dict[str, str]]:
    """The videos of a batch in order, each with its job and its state."""
    after = read_page_token("items", query.page_token, (int,))
    states = None if query.state is None else _parse_states(query.state, ITEM_STATES)
    item_rows = batches.list_items(
        get_services().engine, batch_id, limit=query.limit + 1, after=after[0] if after else None, states=states
    )
    items, token, headers = paginate_items("items", item_rows, query.limit, lambda item: (item.position,))
    names = {
        key: video.name for key, video in videos.get_videos(get_services().engine, _collect_video_ids(items)).items()
    }
    return {"items": [_build_item_record(item, names) for item in items], "next_page_token": token}, headers


@bp.post("/<batch_id>/pause")
@bp.output(BatchRecord)
@bp.doc(responses=document_problems(NotFound, Conflict))
def pause_batch(batch_id: str) -> dict[str, Any]:
    """Start no more of its jobs; those that have started go on. 409 when it has ended."""
    return build_batch_record(service.pause_batch(batch_id))


@bp.post("/<batch_id>/resume")
@bp.output(BatchRecord)
@bp.doc(responses=document_problems(NotFound, Conflict))
def resume_batch(batch_id: str) -> dict[str, Any]:
    """Start the remaining jobs again. 409 when it was cancelled."""
    return build_batch_record(service.resume_batch(batch_id))


@bp.post("/<batch_id>/cancel")
@bp.output(BatchRecord)
@bp.doc(responses=document_problems(NotFound, Conflict))
def cancel_batch(batch_id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Cancel everything that is not done; what is done stays. 409 when it has ended."""
    batch = service.cancel_batch(batch_id)
    return build_batch_record(batch), build_poll_headers(batch)


@bp.post("/<batch_id>/retry")
@bp.output(BatchRecord, 202)
@bp.doc(responses=document_problems(NotFound, Conflict, ModelUnavailable))
def retry_batch(batch_id: str) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Queue what failed or was refused again, under the same cap; what is done stays.

    409 when nothing has failed, or the batch was cancelled.
    """
    batch = service.retry_batch(batch_id)
    return build_batch_record(batch), 202, build_poll_headers(batch)


def _parse_states(text: str, valid_states: tuple[str, ...]) -> list[str]:
    names = text.split(",")
    if set(names) - set(valid_states):
        raise bad_query("state", "unknown_state", f"States are: {', '.join(valid_states)}.")
    return names


def _collect_video_ids(items: list[BatchItem]) -> set[str]:
    return {item.video_id for item in items}


def _build_item_record(item: BatchItem, names: dict[str, str]) -> dict[str, Any]:
    job = None if item.job_id is None else f"/v1/jobs/{item.job_id}"
    urls = {"video": f"/v1/videos/{item.video_id}", "job": job}
    return item.to_dict() | {"name": names.get(item.video_id, ""), "urls": urls}
