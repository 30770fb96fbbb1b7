"""The heartbeat of a run: a thread that renews the lease, reports progress and checks whether the run must stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from typing import Any, Self

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.errors import DeadlineExceeded
from shared.log import get_logger
from shared.settings import Settings
from shared.store.runs import runs
from shared.store.runs.runs import Claim
from shared.values import Progress

log = get_logger(__name__)


class StopReason(StrEnum):
    """Why a run must stop."""

    CANCELLED = "cancelled"
    STOPPING = "stopping"
    FENCED = "fenced"


class RunInterrupted(Exception):
    """Raised inside the run at its next progress report."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Heartbeat:
    """Renews the lease of a claim while its context is open; the `ProgressReporter` of the run.

    The thread has its own database connection, so that a long statement of the run cannot delay it. A run that does not
    stop within `cancel_grace_s` after a cancel, or reports no progress for `stall_s`, is killed with its process. That
    is safe: the state of the run is in the database, and the next claim has a new fence.
    """

    def __init__(self, engine: Engine, claim: Claim, config: Settings) -> None:
        self._engine, self._claim, self._config = engine, claim, config
        self._progress = Progress()
        self._stop_reason: StopReason | None = None
        self._stop_requested_at = 0.0
        self._began = self._progress_at = time.monotonic()
        self._lease_until = self._began + config.lease_s
        self._ended = threading.Event()
        # A daemon, so that a heartbeat that waits for the database cannot keep a stopping process alive.
        self._thread = threading.Thread(target=self._beat_loop, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def report_progress(self, progress: Progress) -> None:
        """Record progress. RunInterrupted if the run must stop; DeadlineExceeded if it took too long."""
        self._progress = progress
        self._progress_at = time.monotonic()
        if self._stop_reason is not None:
            raise RunInterrupted(self._stop_reason)
        if self._progress_at - self._began > self._config.run_deadline_s:
            raise DeadlineExceeded(f"The run took longer than {self._config.run_deadline_s:g} s.")

    def log_event(self, action: str, **facts: Any) -> None:
        """Write a warning to the log."""
        log.warning(action, **facts)

    @property
    def current_stage(self) -> str | None:
        """Name of the stage that is running."""
        return next((stage.name for stage in self._progress.stages if stage.state == "running"), None)

    def _beat_loop(self) -> None:
        while not self._ended.wait(self._config.touch_s):
            self._renew_lease()
            self._enforce_limits()

    def _renew_lease(self) -> None:
        """Renew the lease and read the reply. Without the database the run stops only when the lease has expired."""
        touched_at = time.monotonic()  # before the statement: the lease must not seem longer here than it is there
        try:
            touched = runs.touch_run(self._engine, self._claim, self._live_progress(touched_at), self._config.lease_s)
        except SQLAlchemyError as error:
            log.warning("run.lease_not_renewed", run=self._claim.run_id, reason=type(error).__name__)
            if touched_at > self._lease_until:
                self._request_stop(StopReason.FENCED)
            return
        if touched is None:  # no row with this fence: another worker has claimed the run since
            self._request_stop(StopReason.FENCED)
            return
        self._lease_until = touched_at + self._config.lease_s
        if touched.cancel:
            self._request_stop(StopReason.CANCELLED)
        elif touched.stopping:
            self._request_stop(StopReason.STOPPING)
        elif self._stop_reason is StopReason.CANCELLED:
            self._stop_reason = None  # a new job wants the run before it noticed the cancel: let it continue

    def _live_progress(self, now: float) -> Progress:
        """Progress with the time since the last report added to the running stage: its clock moves between batches."""
        idle = now - self._progress_at
        stages = tuple(
            replace(stage, seconds=stage.seconds + idle) if stage.state == "running" else stage
            for stage in self._progress.stages
        )
        return replace(self._progress, stages=stages)

    def _request_stop(self, reason: StopReason) -> None:
        if self._stop_reason is None:  # the first reason stays: the grace period starts with it
            self._stop_reason, self._stop_requested_at = reason, time.monotonic()
            log.info("run.stop_requested", run=self._claim.run_id, reason=reason.value)

    def _enforce_limits(self) -> None:
        """Kill the process if the run ignores a cancel or makes no progress: a thread cannot stop another one."""
        now = time.monotonic()
        ignores_cancel = (
            self._stop_reason is StopReason.CANCELLED and now - self._stop_requested_at > self._config.cancel_grace_s
        )
        stalled = now - self._progress_at > self._config.stall_s
        if ignores_cancel or stalled:
            log.warning(
                "run.killed",
                run=self._claim.run_id,
                stage=self.current_stage,
                reason="ignored_cancel" if ignores_cancel else "stalled",
            )
            # With a lease of zero the next sweep frees the run; without the database the lease expires by itself.
            with suppress(SQLAlchemyError):
                runs.touch_run(self._engine, self._claim, self._progress, lease_s=0)
            os.kill(os.getpid(), signal.SIGKILL)
