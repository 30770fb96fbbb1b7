"""What routes work with: settings, engine, storage, backlog and notifier of this app."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import cast

from flask import current_app
from sqlalchemy import Engine

from shared import queue
from shared.errors import ModelUnavailable
from shared.log import get_logger
from shared.settings import Settings
from shared.storage import ContentStorage
from shared.store.jobs import jobs
from shared.values import WakeUp

log = get_logger(__name__)

THREADS = 16
"""Threads of one gunicorn worker for requests."""
STREAMS = 32
"""Event streams of one gunicorn worker: each holds one more thread, which mostly sleeps."""
RECOUNT_EVERY_S = 1.0
NOTIFY_PAUSE_S = 5.0


@dataclass(slots=True)
class Backlog:
    """The number of unfinished runs; counted at most once a second, but at every call when the queue is nearly full."""

    engine: Engine
    limit: int
    _unfinished_runs: int = 0
    _recount_at: float = 0.0

    def check_capacity(self) -> None:
        """Count one more job; ModelUnavailable when the queue is full."""
        if time.monotonic() > self._recount_at or self._unfinished_runs > self.limit * 0.9:
            self._unfinished_runs = jobs.count_unfinished_runs(self.engine)
            self._recount_at = time.monotonic() + RECOUNT_EVERY_S
        if self._unfinished_runs >= self.limit:
            raise ModelUnavailable(f"The queue is full ({self.limit} unfinished runs): try again later.")
        self._unfinished_runs += 1  # the job that is about to be created; the next count corrects it


@dataclass(slots=True)
class WorkerNotifier:
    """Wakes workers; for a while after the broker did not answer, this is left to the sweep.

    A broker that hangs would otherwise hold a thread for its time-out on every request.
    """

    _quiet_until: float = 0.0

    def notify_workers(self, wakes: Sequence[WakeUp]) -> None:
        """Send wake-ups; call it after the commit. Nothing is lost when it fails: the row is the outbox."""
        if time.monotonic() < self._quiet_until:
            log.info("message.left_to_sweep", runs=len(wakes))
        elif not queue.publish_wakeups(wakes):
            self._quiet_until = time.monotonic() + NOTIFY_PAUSE_S


@dataclass(frozen=True, slots=True)
class Services:
    """What every view needs: one object a process, in `app.extensions`.

    A long poll holds a thread, so only half of them may wait at any time.
    """

    settings: Settings
    engine: Engine
    files: ContentStorage
    backlog: Backlog
    notifier: WorkerNotifier = field(default_factory=WorkerNotifier)
    waiters: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(THREADS // 2))


def get_services() -> Services:
    """Get the services of the running app."""
    return cast(Services, current_app.extensions["sceneworks"])
