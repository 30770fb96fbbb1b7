"""Waiting for what another process or thread does: until a condition holds, never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE_S = 90.0
"""Generous, because it is spent only by a test that fails; several test processes share the cores."""


def wait_until(
    what: str, condition: Callable[[], T], patience_s: float = PATIENCE_S, pause: Callable[[float], None] = time.sleep
) -> T:
    """Ask again and again until the condition gives something true, and return that.

    Args:
        what: said by the test that fails because it never happened.
        pause: waits so many seconds between two questions, for callers whose own events must go on meanwhile.
    """
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never happened in {patience_s:.0f} s: {what}"
        pause(0.02)
    return value
