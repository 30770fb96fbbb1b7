"""Long polls: an answer that comes when the thing asked for has ended, or when the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from api.http.context import get_services

MAX_WAIT_S = 30
FIRST_POLL_S, POLL_EVERY_S = 0.05, 0.5


class EndableState(Protocol):
    """A state that may be the last."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen."""


class HasState(Protocol):
    """Something that ends."""

    @property
    def state(self) -> EndableState:
        """Where it stands."""


T = TypeVar("T", bound=HasState)


def wait_until_ended(current: T, seconds: float, reload: Callable[[], T]) -> T:
    """Look again until it has ended or the time is over; at once back when too many wait already."""
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
