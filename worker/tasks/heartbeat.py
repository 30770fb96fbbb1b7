"""The thread that keeps a claim alive, carries progress out and looks for a reason to stop."""

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
from shared.log import logger
from shared.settings import Settings
from shared.store import runs
from shared.store.runs import Claim
from shared.values import Progress

log = logger(__name__)


class Why(StrEnum):
    """Why a run has to stop."""

    CANCELLED = "cancelled"
    STOPPING = "stopping"
    FENCED = "fenced"


class Interrupted(Exception):
    """Raised inside the run at its next sign of progress."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.value)
        self.why = why


class Heartbeat:
    """While it beats the lease holds. It is the run's `Report`.

    The thread has its own connection, so that a long statement of the run cannot silence it. A run that does not stop
    `cancel_grace_s` after a cancel, or shows no progress for `stall_s`, is killed with its process: the row is the
    truth, and the next claim has a new fence.
    """

    def __init__(self, engine: Engine, claim: Claim, config: Settings) -> None:
        self._engine, self._claim, self._config = engine, claim, config
        self._progress = Progress()
        self._why: Why | None = None
        self._asked_at = 0.0
        self._began = self._moved_at = time.monotonic()
        self._lease_until = self._began + config.lease_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def progress(self, progress: Progress) -> None:
        """The run goes on. Interrupted when it must not; DeadlineExceeded when it took too long."""
        self._progress = progress
        self._moved_at = time.monotonic()
        if self._why is not None:
            raise Interrupted(self._why)
        if self._moved_at - self._began > self._config.run_deadline_s:
            raise DeadlineExceeded(f"The run took longer than {self._config.run_deadline_s:g} s.")

    def note(self, action: str, **facts: Any) -> None:
        """A line in the log."""
        log.warning(action, **facts)

    @property
    def stage(self) -> str | None:
        """Name of the stage that runs now."""
        return next((stage.name for stage in self._progress.stages if stage.state == "running"), None)

    def _beat(self) -> None:
        while not self._over.wait(self._config.touch_s):
            self._touch()
            self._enforce()

    def _touch(self) -> None:
        """One statement. A database that is away is no reason to stop before the lease is over."""
        asked = time.monotonic()
        try:
            touched = runs.touch(self._engine, self._claim, self._lively(asked), self._config.lease_s)
        except SQLAlchemyError as error:
            log.warning("run.untouched", run=self._claim.run_id, reason=type(error).__name__)
            if asked > self._lease_until:
                self._stop(Why.FENCED)
            return
        if touched is None:
            self._stop(Why.FENCED)
            return
        self._lease_until = asked + self._config.lease_s
        if touched.cancel:
            self._stop(Why.CANCELLED)
        elif touched.stopping:
            self._stop(Why.STOPPING)
        elif self._why is Why.CANCELLED:
            self._why = None  # wanted again before the run noticed

    def _lively(self, now: float) -> Progress:
        """Progress with the clock of the running stage, which moves between two batches too."""
        idle = now - self._moved_at
        stages = tuple(
            replace(stage, seconds=stage.seconds + idle) if stage.state == "running" else stage
            for stage in self._progress.stages
        )
        return replace(self._progress, stages=stages)

    def _stop(self, why: Why) -> None:
        if self._why is None:
            self._why, self._asked_at = why, time.monotonic()
            log.info("run.stop_asked", run=self._claim.run_id, why=why.value)

    def _enforce(self) -> None:
        now = time.monotonic()
        deaf = self._why is Why.CANCELLED and now - self._asked_at > self._config.cancel_grace_s
        stalled = now - self._moved_at > self._config.stall_s
        if deaf or stalled:
            log.warning("run.killed", run=self._claim.run_id, stage=self.stage, why="deaf" if deaf else "stalled")
            with suppress(SQLAlchemyError):  # the lease then runs out by itself
                runs.touch(self._engine, self._claim, self._progress, lease_s=0)
            os.kill(os.getpid(), signal.SIGKILL)
