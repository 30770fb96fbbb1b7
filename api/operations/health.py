"""Routes of health: `/healthz` and `/readyz`."""

from __future__ import annotations

import os

from apiflask import APIBlueprint
from flask import Response
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError as PoolTimeoutError

from api.http.context import get_services
from api.http.problems import allow_anonymous, build_problem_response
from api.http.schemas import Record
from shared import db, queue
from shared.errors import Internal
from shared.log import get_logger

log = get_logger(__name__)
bp = APIBlueprint("health", __name__, tag="Health")


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
@allow_anonymous
@bp.output(HealthRecord)
def show_health() -> dict[str, str]:
    """Alive: the process answers."""
    return {"status": "ok"}


@bp.get("/readyz")
@allow_anonymous
@bp.doc(responses={503: "The database or the storage is not ready; `checks` says which."})
@bp.output(ReadyRecord)
def show_readiness() -> Response | ReadyRecord:
    """Ready: database writable and migrated, storage writable.

    A broker that is down is reported and not fatal: the database accepts jobs, and they start when it is back.
    """
    checks = ReadyRecord(status="ready", database=_check_database(), broker=_check_broker(), storage=_check_storage())
    if checks.database.writable and checks.database.migrated and checks.storage.writable:
        return checks
    parts = checks.model_dump(exclude={"status"})
    return build_problem_response(
        Internal("The service is not ready; see `checks`."), status=503, retryable=True, checks=parts
    )


def _check_database() -> DatabaseCheck:
    try:
        engine = get_services().engine
        return DatabaseCheck(reachable=True, writable=db.is_writable(engine), migrated=db.is_schema_current(engine))
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        log.warning("database.unreachable", error=type(error).__name__)
        return DatabaseCheck(reachable=False, writable=False, migrated=False)


def _check_broker() -> BrokerCheck:
    return BrokerCheck(reachable=queue.ping_broker())


def _check_storage() -> StorageCheck:
    try:
        free = get_services().files.free_bytes()
    except OSError as error:
        log.warning("storage.unreachable", error=type(error).__name__)
        return StorageCheck(writable=False, free_bytes=0)
    return StorageCheck(writable=os.access(get_services().settings.data_dir, os.W_OK), free_bytes=free)
