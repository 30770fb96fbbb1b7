"""What the API stands on, and whether it is well: `/healthz` and `/readyz`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import cast

from apiflask import APIBlueprint
from flask import Response, current_app
from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError as PoolTimeoutError

from api.errors import Record, open_to_all, problem
from shared import db, queue
from shared.errors import Internal, ModelUnavailable
from shared.files import Files
from shared.log import logger
from shared.settings import Settings
from shared.store import jobs
from shared.values import Wake

log = logger(__name__)

THREADS = 16
"""Of one gunicorn worker, for requests."""
STREAMS = 32
"""Event streams of one gunicorn worker: each holds a thread more, which mostly sleeps."""

bp = APIBlueprint("health", __name__, tag="Health")


COUNT_EVERY_S = 1.0
QUIET_S = 5.0


@dataclass(slots=True)
class Backlog:
    """The number of unfinished runs; counted at most once a second, but every time when the queue is nearly full."""

    engine: Engine
    limit: int
    _known: int = 0
    _until: float = 0.0

    def check(self) -> None:
        """ModelUnavailable when the queue is full."""
        if time.monotonic() > self._until or self._known > self.limit * 0.9:
            self._known = jobs.unfinished(self.engine)
            self._until = time.monotonic() + COUNT_EVERY_S
        if self._known >= self.limit:
            raise ModelUnavailable(f"The queue is full ({self.limit} unfinished runs): try again later.")
        self._known += 1  # the job that is about to be made


@dataclass(slots=True)
class Doorbell:
    """Wakes workers, and leaves it to the sweep for a while when the broker does not answer.

    A broker that hangs would otherwise hold a thread for its time-out on every request.
    """

    _quiet_until: float = 0.0

    def ring(self, wakes: Sequence[Wake]) -> None:
        """Send after the commit. Nothing is lost when it fails: the row is the outbox."""
        if time.monotonic() < self._quiet_until:
            log.info("message.left_to_sweep", runs=len(wakes))
        elif not queue.send_all(wakes):
            self._quiet_until = time.monotonic() + QUIET_S


@dataclass(frozen=True, slots=True)
class Services:
    """What every view needs; one a process, in `app.extensions`.

    A long poll holds a thread, so only half of them may wait at any time.
    """

    settings: Settings
    engine: Engine
    files: Files
    backlog: Backlog
    doorbell: Doorbell = field(default_factory=Doorbell)
    waiters: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(THREADS // 2))


def services() -> Services:
    """The services of the running app."""
    return cast(Services, current_app.extensions["sceneworks"])


class HealthRecord(Record):
    """The process answers."""

    status: str


class DatabaseCheck(Record):
    """Postgres: reachable, taking writes, and with the schema of this code."""

    reachable: bool
    writable: bool
    migrated: bool


class BrokerCheck(Record):
    """Valkey or Redis; jobs are accepted without it and start when it is back."""

    reachable: bool


class StorageCheck(Record):
    """The folder of videos and artifacts."""

    writable: bool
    free_bytes: int


class ReadyRecord(Record):
    """Whether requests can be served, and by which parts."""

    status: str
    database: DatabaseCheck
    broker: BrokerCheck
    storage: StorageCheck


@bp.get("/healthz")
@open_to_all
@bp.output(HealthRecord)
def healthz() -> dict[str, str]:
    """Alive: the process answers."""
    return {"status": "ok"}


@bp.get("/readyz")
@open_to_all
@bp.doc(responses={503: "The database or the storage is not ready; `checks` says which."})
@bp.output(ReadyRecord)
def readyz() -> Response | ReadyRecord:
    """Ready: database writable and migrated, storage writable.

    A broker that is down is reported and not fatal: the ledger accepts jobs, and they start when it is back.
    """
    checks = ReadyRecord(status="ready", database=_database(), broker=_broker(), storage=_storage())
    if checks.database.writable and checks.database.migrated and checks.storage.writable:
        return checks
    parts = checks.model_dump(exclude={"status"})
    return problem(Internal("The service is not ready; see `checks`."), status=503, retryable=True, checks=parts)


def _database() -> DatabaseCheck:
    try:
        engine = services().engine
        return DatabaseCheck(reachable=True, writable=db.writable(engine), migrated=db.migrated(engine))
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        log.warning("database.unreachable", error=type(error).__name__)
        return DatabaseCheck(reachable=False, writable=False, migrated=False)


def _broker() -> BrokerCheck:
    return BrokerCheck(reachable=queue.ping())


def _storage() -> StorageCheck:
    try:
        free = services().files.free()
    except OSError as error:
        log.warning("storage.unreachable", error=type(error).__name__)
        return StorageCheck(writable=False, free_bytes=0)
    return StorageCheck(writable=os.access(services().settings.data_dir, os.W_OK), free_bytes=free)
