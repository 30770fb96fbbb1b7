"""Long polls: an answer that is sent when a job or batch has ended, or when the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from api.http.context import get_services

MAX_WAIT_S = 30
FIRST_POLL_S, POLL_EVERY_S = 0.05, 0.5


class EndableState(Protocol):
    """A state that may be final."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen."""


class HasState(Protocol):
    """Something whose state becomes final: a job or a batch."""

    @property
    def state(self) -> EndableState:
        """Its present state."""


T = TypeVar("T", bound=HasState)


def wait_until_ended(current: T, seconds: float, reload: Callable[[], T]) -> T:
    """Reload until it has ended or the time is over; returns at once when too many requests wait already."""
    # A waiting request holds a thread. Half of them stay free for requests that do not wait.
    waiters = get_services().waiters
    if not waiters.acquire(blocking=False):
        return current
    try:
        deadline, delay_s = time.monotonic() + seconds, FIRST_POLL_S
        while not current.state.has_ended and (remaining_s := deadline - time.monotonic()) > 0:
            time.sleep(min(delay_s, remaining_s))
            delay_s = min(delay_s * 1.5, POLL_EVERY_S)
            current = reload()
        return current
    finally:
        waiters.release()
