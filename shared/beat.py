"""Beat: the scheduler process that sweeps runs, plans schedules, feeds batches and removes unreferenced files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar

import redis
from celery.beat import ScheduleEntry, Scheduler
from sqlalchemy.exc import SQLAlchemyError

from shared.db import get_engine
from shared.log import get_logger
from shared.queue import (
    SCHEDULES_TASK,
    SWEEP_TASK,
    TIDY_TASK,
    UNREFERENCED_GRACE_S,
    publish_wakeup,
    publish_wakeups,
    read_queue_depths,
)
from shared.settings import get_settings
from shared.storage import ContentStorage
from shared.store.batches import batches, schedules
from shared.store.runs import sweep
from shared.values import format_timestamp

log = get_logger(__name__)


def sweep_runs() -> None:
    """Free runs that lost their worker, then send queued runs that have no message."""
    for freed in sweep.free_expired_runs(get_engine()):
        log.warning("run.worker_lost", run=freed.run_id, model=freed.model, worker=freed.owner, now=freed.state.value)
    expected = sweep.count_expected_messages(get_engine())
    for wakeup in sweep.take_runs_to_send(get_engine(), read_queue_depths(), expected, get_settings().resend_s):
        log.info("run.sent", run=wakeup.run_id, model=wakeup.model)
        if not publish_wakeup(wakeup):
            return


def run_schedules_and_batches() -> None:
    """Fire due schedules, create jobs for the next videos of each batch, and freeze the counts of ended batches."""
    now = datetime.now(UTC)
    for schedule_id in schedules.list_due_schedules(get_engine(), now):
        for slot in schedules.fire_schedule(get_engine(), schedule_id, now):
            log.info(
                "schedule.due", schedule=slot.schedule_id, due_at=format_timestamp(slot.due_at), batch=slot.batch_id,
                films=slot.videos, skipped=slot.reason,
            )  # fmt: skip
    for batch_id in batches.list_pending_batches(get_engine()):
        wakeups = batches.dispatch_jobs(get_engine(), batch_id, datetime.now(UTC), get_settings().max_attempts)
        if wakeups:
            log.info("batch.fed", batch=batch_id, runs=len(wakeups))
            publish_wakeups(wakeups)
    for batch_id in batches.freeze_outcomes(get_engine()):
        log.info("batch.ended", batch=batch_id)


def remove_unreferenced() -> None:
    """Delete rows and files that nothing refers to any more."""
    rows = sweep.delete_stale_rows(get_engine())
    files = ContentStorage(get_settings().data_dir)
    removed = sweep.find_unreferenced(get_engine(), files.list_hashes(UNREFERENCED_GRACE_S))
    for sha256 in removed:
        files.remove_file(sha256)
    for path in files.list_stale_incoming(older_than_s=86_400):
        path.unlink(missing_ok=True)
    log.info("sweep.tidied", rows=rows, files=len(removed))


class InlineScheduler(Scheduler):  # type: ignore[misc]
    """Beat's scheduler: the sweep runs here and now; only other entries would become messages."""

    _inline_tasks: ClassVar[dict[str, Callable[[], None]]] = {
        SWEEP_TASK: sweep_runs,
        TIDY_TASK: remove_unreferenced,
        SCHEDULES_TASK: run_schedules_and_batches,
    }

    def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
        """Run one due entry. An unreachable server is logged, and the entry is tried again at the next tick."""
        task = self._inline_tasks.get(entry.task)
        if task is None:
            super().apply_entry(entry, producer)
            return
        try:
            task()
        except (SQLAlchemyError, redis.RedisError) as error:
            log.warning("sweep.postponed", duty=entry.task, reason=type(error).__name__)
