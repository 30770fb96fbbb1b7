"""Long polls: an answer that comes when the thing asked for has ended, or when the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from api.service.health import services

MAX_WAIT_S = 30
LOOK_FIRST_S, LOOK_EVERY_S = 0.05, 0.5


class State(Protocol):
    """A state that may be the last."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""


class Ending(Protocol):
    """Something that ends."""

    @property
    def state(self) -> State:
        """Where it stands."""


T = TypeVar("T", bound=Ending)


def until_ended(found: T, seconds: float, look: Callable[[], T]) -> T:
    """Look again until it has ended or the time is over; at once back when too many wait already."""
    waiters = services().waiters
    if not waiters.acquire(blocking=False):
        return found
    try:
        deadline, pause = time.monotonic() + seconds, LOOK_FIRST_S
        while not found.state.ended and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, LOOK_EVERY_S)
            found = look()
        return found
    finally:
        waiters.release()
