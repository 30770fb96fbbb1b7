"""Start the scanner: `python -m worker.scanner`."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from types import FrameType

from shared import log as logs
from shared.db import get_engine
from shared.settings import get_settings
from worker.scanner import run_scanner

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main() -> None:
    """Scan until SIGTERM or SIGINT."""
    logs.configure_logging()
    log = logs.get_logger(__name__)
    for number in STOP_SIGNALS:
        signal.signal(number, _stop_scanner)
    log.info("scanner.started", roots=get_settings().source_roots)
    # KeyboardInterrupt unwinds the scan from any statement, also from the middle of hashing a long file.
    with suppress(KeyboardInterrupt):
        run_scanner(get_engine(), get_settings(), owner=f"{socket.gethostname()}-{os.getpid()}")
    log.info("scanner.stopped")


def _stop_scanner(*_: int | FrameType | None) -> None:
    """Stop at the first signal, and ignore later ones: a second must not interrupt the release of the source."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
