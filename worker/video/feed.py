"""Frames cut into windows, a batch ahead: the decoder works in a thread while the device works on what it has."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Self

import numpy as np
import numpy.typing as npt

from worker.video.pictures.keep import Keeper
from worker.video.reader import Reader
from worker.video.transform import View, see

Frames = npt.NDArray[np.uint8]
"""uint8 frames; the shape is in the name of the variable."""


@dataclass(frozen=True, slots=True)
class Windows:
    """How the stream of frames is cut into windows.

    Window k holds frames `k*step - lead` to `k*step - lead + length`, the first and last frame of the film repeated
    where that reaches outside, and answers for frames `k*step` to `(k+1)*step`. There are ceil(n / step) windows.
    """

    length: int
    step: int
    lead: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.step <= self.length and 0 <= self.lead <= self.length - self.step):
            raise ValueError(f"impossible windows: {self}")


@dataclass(frozen=True, slots=True)
class Window:
    """One window of frames and the frames `start` to `stop` that it answers for."""

    frames_THWC: Frames
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows that go through the network together."""

    windows: tuple[Window, ...]


def cut(frames: Iterable[Frames], spec: Windows) -> Iterator[Window]:
    """Windows over a stream of unknown length; the first and last frame fill what reaches outside it.

    For length 4, step 2, lead 1 and frames 0 1 2 3 4: `0 0 1 2` answers for 0 1, `1 2 3 4` for 2 3, `3 4 4 4` for 4.
    """
    held: list[Frames] = []
    start = seen = 0
    for frame_HWC in frames:
        if not seen:
            held = [frame_HWC] * spec.lead
        held.append(frame_HWC)
        seen += 1
        if len(held) == spec.length:
            yield Window(np.stack(held), start, start + spec.step)
            start += spec.step
            held = held[spec.step :]
    while start < seen:
        held += [held[-1]] * (spec.length - len(held))
        yield Window(np.stack(held[: spec.length]), start, min(start + spec.step, seen))
        start += spec.step
        held = held[spec.step :] or held[-1:]


class Handover:
    """One item at a time from one thread to another.

    The giver goes on once its item was taken: it is never more than one ahead, and what is held for it stays bounded.
    """

    def __init__(self) -> None:
        self._items: SimpleQueue[Batch | BaseException | None] = SimpleQueue()
        self._taken = threading.Semaphore(0)
        self._closed = False

    def give(self, item: Batch | BaseException | None) -> bool:
        """Wait until it was taken; False when nobody will."""
        self._items.put(item)
        self._taken.acquire()
        return not self._closed

    def take(self) -> Batch | BaseException | None:
        """Wait for the next item."""
        item = self._items.get()
        self._taken.release()
        return item

    def close(self) -> None:
        """Nothing will be taken any more."""
        self._closed = True
        self._taken.release()


class Feed:
    """Batches of windows, made in a thread, one batch ahead.

    A context manager: leaving it stops the thread, wherever it is.

    Args:
        windows: a film cut up, or keyframes out of an archive; consumed in the thread.
        size: windows in a batch.
    """

    def __init__(self, windows: Iterable[Window], size: int) -> None:
        self._windows, self._size = windows, size
        self._batches = Handover()
        self._thread = threading.Thread(target=self._work, name="decode", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._batches.close()
        self._thread.join()

    def __iter__(self) -> Iterator[Batch]:
        while (item := self._batches.take()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _work(self) -> None:
        try:
            for batch in self._batched():
                if not self._batches.give(batch):
                    return
            self._batches.give(None)
        except BaseException as error:  # noqa: BLE001 (handed to the thread that waits for the batch)
            self._batches.give(error)

    def _batched(self) -> Iterator[Batch]:
        held: list[Window] = []
        for window in self._windows:
            held.append(window)
            if len(held) == self._size:
                yield Batch(tuple(held))
                held = []
        if held:
            yield Batch(tuple(held))


def seen(reader: Reader, view: View, keeper: Keeper | None) -> Iterator[Frames]:
    """Every frame of a film once, as `view` shows it; the keeper gets each after it was looked at."""
    for frame in reader.frames():
        # Seen before it is handed over: two threads must not convert one picture at the same time.
        picture = see(view, frame, reader.video)
        if keeper is not None:
            keeper.push(frame)
        yield picture
