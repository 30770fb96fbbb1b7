"""Wait for another process or thread to do something."""

from __future__ import annotations

import time
from collections.abc import Callable

POLL_S = 0.02


def wait_until(description: str, condition: Callable[[], object], patience_s: float = 30.0) -> None:
    """Poll a condition until it is true; the test fails after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {description}"
        time.sleep(POLL_S)
