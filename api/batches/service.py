"""Use cases of batches: create, preview, pause, resume, cancel, retry. JSON routes and pages both call them."""

from __future__ import annotations

from api.admission import admit_batch, admit_plan, admit_retry
from api.batches.schemas import BatchBody, parse_work
from api.http.context import get_services
from shared.log import get_logger
from shared.store.batches import batches, selection
from shared.store.batches.batches import NewBatch
from shared.store.batches.selection import BatchPlan
from shared.values.batches import Batch, SelectionFilter

log = get_logger(__name__)


def create_batch(body: BatchBody, kind: str = "batch", *, only: SelectionFilter | None = None) -> Batch:
    """Store a batch; its jobs follow as its cap allows.

    Args:
        body: the request.
        kind: `batch` or `reprocess`.
        only: which videos are selected where the request does not say.

    Raises:
        InvalidRequest, NotFound: the request, or no video is selected.
        ModelUnavailable, WeightsMissing, WeightsCorrupt: the work may not be accepted now.
    """
    work = parse_work(body, only=only)
    admit_batch(selection.parse_analyses(work))
    batch = batches.create_batch(get_services().engine, NewBatch(body.title, work, kind))
    log_created_batch(batch)
    return batch


def preview_batch(body: BatchBody, *, only: SelectionFilter | None = None, starts_now: bool = False) -> BatchPlan:
    """Estimate what a batch would do, and store nothing; raises what `create_batch` raises.

    Args:
        body: the request.
        only: which videos are selected where the request does not say.
        starts_now: whether the batch is refused too where it could not start now.
    """
    work = parse_work(body, only=only)
    analyses = selection.parse_analyses(work)
    if starts_now:
        admit_batch(analyses)
    else:
        admit_plan(analyses)
    return selection.dry_run(get_services().engine, work)


def pause_batch(batch_id: str) -> Batch:
    """Start no more jobs of a batch; NotFound, Conflict when it has ended."""
    batch = batches.pause_batch(get_services().engine, batch_id)
    log.info("batch.paused", batch=batch_id)
    return batch


def resume_batch(batch_id: str) -> Batch:
    """Start the remaining jobs of a batch; NotFound, Conflict when it was cancelled."""
    batch = batches.resume_batch(get_services().engine, batch_id)
    log.info("batch.resumed", batch=batch_id)
    return batch


def cancel_batch(batch_id: str) -> Batch:
    """Cancel every unfinished job of a batch; NotFound, Conflict when it has ended."""
    batch = batches.cancel_batch(get_services().engine, batch_id)
    log.info("batch.cancelled", batch=batch_id, state=batch.state.value)
    return batch


def retry_batch(batch_id: str) -> Batch:
    """Queue the failed and refused videos of a batch again; NotFound, Conflict, ModelUnavailable."""
    engine = get_services().engine
    admit_retry([model for model, _ in batches.get_batch(engine, batch_id).work.analyses])
    batch = batches.retry_batch(engine, batch_id)
    log.info("batch.retried", batch=batch_id)
    return batch


def log_created_batch(batch: Batch) -> None:
    """Log a batch that was just stored, by a request or by a schedule that was run by hand."""
    log.info("batch.created", batch=batch.id, kind=batch.kind, videos=batch.videos)
