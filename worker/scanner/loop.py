"""The scanner's main loop: claim a source, scan it, repeat until stopped."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bound_contextvars

from shared.errors import Internal
from shared.log import get_logger
from shared.settings import Settings
from shared.store.videos import sources
from shared.store.videos.sources import ScanClaim
from worker.scanner.scan import ScanFenced, SourceScanner

log = get_logger(__name__)

POLL_EVERY_S = 1.0
"""Pause after a claim that found no source to be scanned."""


def run_scanner(engine: Engine, config: Settings, owner: str) -> None:
    """Scan sources until KeyboardInterrupt, which may come in the middle of a file."""
    while True:
        try:
            scanned = scan_next_source(engine, config, owner)
        except SQLAlchemyError as error:  # the database is away: the lease runs out, and the scan starts anew
            log.warning("scan.postponed", reason=type(error).__name__)
            scanned = False
        if not scanned:
            time.sleep(POLL_EVERY_S)


def scan_next_source(engine: Engine, config: Settings, owner: str) -> bool:
    """Claim and scan one source, if one is to be scanned; return whether there was one."""
    scan = sources.claim_scan(engine, owner, config.lease_s)
    if scan is None:
        return False
    with bound_contextvars(source=scan.source.id, fence=scan.fence):
        log.info("scan.claimed", forced=scan.forced)
        try:
            _log_scan_end(_run_claimed_scan(engine, scan, config))
        except ScanFenced:
            log.warning("scan.fenced")
        except KeyboardInterrupt:
            # Released at once, so that another scanner need not wait until the lease has expired.
            log.info("scan.released", ours=sources.release_scan(engine, scan))
            raise
    return True


def _run_claimed_scan(engine: Engine, scan: ScanClaim, config: Settings) -> Mapping[str, Any]:
    """Run the scan and return its report. A bug ends this scan only: the other sources are still scanned."""
    scanner = SourceScanner(engine, scan, config)
    try:
        return scanner.run_scan().scan
    except (SQLAlchemyError, ScanFenced):
        raise
    except Exception:
        log.exception("scan.bug")
        stats = scanner.build_stats(Internal("The scan failed because of an internal error; see the scanner's log."))
        sources.fail_scan(engine, scan, stats)
        return stats


def _log_scan_end(stats: Mapping[str, Any]) -> None:
    counts = {name: value for name, value in stats.items() if isinstance(value, int | float)}
    if stats["error"] is None:
        log.info("scan.done", **counts)
    else:
        log.warning("scan.failed", code=stats["error"]["code"], detail=stats["error"]["detail"], **counts)
