"""What the scanner's process does: claim a source, scan it, and so on until it is told to stop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bound_contextvars

from api.archive.scanner.scan import Fenced, Scanning
from shared.errors import Internal
from shared.log import logger
from shared.settings import Settings
from shared.store.archive import sources
from shared.store.archive.sources import Scan

log = logger(__name__)

LOOK_EVERY_S = 1.0


def serve(engine: Engine, config: Settings, owner: str) -> None:
    """Scan what is to be scanned, for ever. KeyboardInterrupt ends it, in the middle of a file too."""
    while True:
        try:
            busy = scan_next(engine, config, owner)
        except SQLAlchemyError as error:  # the database is away: the lease runs out, and the scan starts anew
            log.warning("scan.postponed", reason=type(error).__name__)
            busy = False
        if not busy:
            time.sleep(LOOK_EVERY_S)


def scan_next(engine: Engine, config: Settings, owner: str) -> bool:
    """Scan one source, if there is one to be scanned; whether there was."""
    scan = sources.claim(engine, owner, config.lease_s)
    if scan is None:
        return False
    with bound_contextvars(source=scan.source.id, fence=scan.fence):
        log.info("scan.claimed", forced=scan.forced)
        try:
            _log_end(_scan(engine, scan, config))
        except Fenced:
            log.warning("scan.fenced")
        except KeyboardInterrupt:
            log.info("scan.let_go", ours=sources.let_go(engine, scan))
            raise
    return True


def _scan(engine: Engine, scan: Scan, config: Settings) -> Mapping[str, Any]:
    """What the scan found. A bug ends this scan alone: the other sources are scanned all the same."""
    scanning = Scanning(engine, scan, config)
    try:
        return scanning.run().scan
    except (SQLAlchemyError, Fenced):
        raise
    except Exception:
        log.exception("scan.bug")
        told = scanning.told(Internal("The scan failed for a reason of ours; the scanner's log has it."))
        sources.fail(engine, scan, told)
        return told


def _log_end(told: Mapping[str, Any]) -> None:
    counts = {name: value for name, value in told.items() if isinstance(value, int | float)}
    if told["error"] is None:
        log.info("scan.done", **counts)
    else:
        log.warning("scan.failed", code=told["error"]["code"], detail=told["error"]["detail"], **counts)
