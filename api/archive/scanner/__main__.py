"""The process `python -m api.archive.scanner`."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from types import FrameType

from api.archive.scanner import serve
from shared import log as logs
from shared.db import engine
from shared.settings import settings

ENDING = (signal.SIGTERM, signal.SIGINT)


def main() -> None:
    """Scan until SIGTERM or SIGINT."""
    logs.configure()
    log = logs.logger(__name__)
    for number in ENDING:
        signal.signal(number, _stop)
    log.info("scanner.started", roots=settings().archive_roots)
    with suppress(KeyboardInterrupt):
        serve(engine(), settings(), owner=f"{socket.gethostname()}-{os.getpid()}")
    log.info("scanner.stopped")


def _stop(*_: int | FrameType | None) -> None:
    """One signal is enough: a second must not cut into the stopping."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
