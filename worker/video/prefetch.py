"""Decode ahead in a thread: batches of windows, ready while the device computes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol, Self

from shared.values import VideoFacts
from worker.video.reader import Frame
from worker.video.transform import View, apply_view
from worker.video.windows import Frames, Window


class FrameSink(Protocol):
    """Receives every decoded frame; `KeyframeStore` is one.

    A protocol, so that this module does not import the package `keyframes`, which imports this package.
    """

    def add_frame(self, frame: Frame) -> None:
        """Take one more frame, in order."""


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """Windows that go through the network together."""

    windows: tuple[Window, ...]


class RendezvousQueue:
    """Hands one item at a time from a producer thread to a consumer thread.

    The producer continues once its item was taken, so it is never more than one item ahead and memory stays bounded.
    A `Queue(maxsize=1)` would let it prepare a second item while the first still waits.
    """

    def __init__(self) -> None:
        self._items: SimpleQueue[WindowBatch | BaseException | None] = SimpleQueue()
        self._taken = threading.Semaphore(0)
        self._closed = False

    def put_item(self, item: WindowBatch | BaseException | None) -> bool:
        """Wait until the consumer took the item; False when the queue was closed instead."""
        self._items.put(item)
        self._taken.acquire()
        return not self._closed

    def take_item(self) -> WindowBatch | BaseException | None:
        """Wait for the next item."""
        item = self._items.get()
        self._taken.release()
        return item

    def close(self) -> None:
        """Stop the producer: nothing will be taken any more."""
        self._closed = True
        # The producer may be waiting for its item to be taken: wake it up, so that it can see the flag.
        self._taken.release()


class WindowPrefetcher:
    """Prepares batches of windows in a thread, one batch ahead of the consumer.

    A context manager: leaving it stops the thread, wherever it is.

    Args:
        windows: windows of a video, or of keyframes from a ZIP file; consumed in the thread.
        batch_size: windows in a batch.
    """

    def __init__(self, windows: Iterable[Window], batch_size: int) -> None:
        self._windows, self._batch_size = windows, batch_size
        self._queue = RendezvousQueue()
        self._thread = threading.Thread(target=self._run_producer, name="decode", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.close()
        self._thread.join()

    def __iter__(self) -> Iterator[WindowBatch]:
        while (item := self._queue.take_item()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run_producer(self) -> None:
        try:
            for batch in self._group_windows():
                if not self._queue.put_item(batch):
                    return
            self._queue.put_item(None)
        except BaseException as error:  # noqa: BLE001 (handed to the thread that waits for the batch)
            self._queue.put_item(error)

    def _group_windows(self) -> Iterator[WindowBatch]:
        pending: list[Window] = []
        for window in self._windows:
            pending.append(window)
            if len(pending) == self._batch_size:
                yield WindowBatch(tuple(pending))
                pending = []
        if pending:
            yield WindowBatch(tuple(pending))


def view_frames(
    frames: Iterable[Frame],
    video: VideoFacts,
    view_fn: Callable[[Frame, VideoFacts], Frames],
    is_wanted: Callable[[int], bool] = lambda _: True,
    store: FrameSink | None = None,
    first_frame: int = 0,
) -> Iterator[Frames | None]:
    """Convert frames to arrays: one item for each frame number from `first_frame` on, None where it is not wanted.

    Args:
        frames: in order. Where a number is missing (the video is damaged), the next frame takes its place.
        video: facts.
        view_fn: converts a frame to an array.
        is_wanted: whether the frame is needed, by its offset from the first frame.
        store: receives each frame after it was converted.
        first_frame: number of the first frame.
    """
    offset = 0
    for frame in frames:
        numbers = range(offset, frame.index - first_frame + 1)
        # Convert before the store has the frame: two threads must not convert one frame at the same time.
        # Store it before it is yielded: whoever receives the array may ask the store for the frame at once.
        image = view_fn(frame, video) if any(map(is_wanted, numbers)) else None
        if store is not None:
            store.add_frame(frame)
        for number in numbers:
            yield image if is_wanted(number) else None
        offset = max(offset, numbers.stop)


def make_view_fn(view: View, prepare: Callable[[Frames], Frames] | None) -> Callable[[Frame, VideoFacts], Frames]:
    """Build the function that converts a frame: the view is applied first, then `prepare` for the network."""

    def view_frame(frame: Frame, video: VideoFacts) -> Frames:
        image = apply_view(view, frame, video)
        return image if prepare is None else prepare(image)

    return view_frame
