"""What the API stands on, and whether it is well: `/healthz` and `/readyz`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import cast

from apiflask import APIBlueprint
from flask import Response, current_app
from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError as PoolTimeoutError

from api.errors import Record, open_to_all, problem
from shared import db, queue
from shared.errors import Internal
from shared.files import Files
from shared.log import logger
from shared.settings import Settings

log = logger(__name__)

THREADS = 16
"""Of one gunicorn worker."""

bp = APIBlueprint("health", __name__, tag="Health")


@dataclass(frozen=True, slots=True)
class Services:
    """What every view needs; one a process, in `app.extensions`.

    A long poll holds a thread, so only half of them may wait at any time.
    """

    settings: Settings
    engine: Engine
    files: Files
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
    if checks.database.migrated and checks.storage.writable:
        return checks
    parts = checks.model_dump(exclude={"status"})
    return problem(Internal("The service is not ready; see `checks`."), status=503, retryable=True, checks=parts)


def _database() -> DatabaseCheck:
    try:
        return DatabaseCheck(reachable=True, migrated=db.migrated(services().engine))
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        log.warning("database.unreachable", error=type(error).__name__)
        return DatabaseCheck(reachable=False, migrated=False)


def _broker() -> BrokerCheck:
    return BrokerCheck(reachable=queue.ping())


def _storage() -> StorageCheck:
    try:
        free = services().files.free()
    except OSError as error:
        log.warning("storage.unreachable", error=type(error).__name__)
        return StorageCheck(writable=False, free_bytes=0)
    return StorageCheck(writable=os.access(services().settings.data_dir, os.W_OK), free_bytes=free)
