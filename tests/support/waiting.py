"""Wait for another process or thread: until a condition holds, never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_S = 0.02
PATIENCE_S = 90.0
"""Generous, because only a failing test spends it; several test processes share the cores."""


def wait_until(
    description: str,
    condition: Callable[[], T],
    patience_s: float = PATIENCE_S,
    pause: Callable[[float], None] = time.sleep,
) -> T:
    """Poll a condition until it returns something true, and return that; the test fails after `patience_s`.

    Args:
        pause: sleeps between two polls; a browser test passes one that lets the page run.
    """
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never happened in {patience_s:.0f} s: {description}"
        pause(POLL_S)
    return value
