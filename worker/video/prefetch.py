"""Decode ahead in a thread: batches of windows, ready while the device computes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Self

from shared.values import VideoFacts
from worker.video.keyframes.store import KeyframeStore
from worker.video.reader import Frame
from worker.video.transform import View, apply_view
from worker.video.windows import Frames, Window


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """Windows that go through the network together."""

    windows: tuple[Window, ...]


class RendezvousQueue:
    """One item at a time from one thread to another.

    The giver goes on once its item was taken: it is never more than one ahead, and what is held for it stays bounded.
    """

    def __init__(self) -> None:
        self._items: SimpleQueue[WindowBatch | BaseException | None] = SimpleQueue()
        self._taken = threading.Semaphore(0)
        self._closed = False

    def put_item(self, item: WindowBatch | BaseException | None) -> bool:
        """Wait until it was taken; False when nobody will."""
        self._items.put(item)
        self._taken.acquire()
        return not self._closed

    def take_item(self) -> WindowBatch | BaseException | None:
        """Wait for the next item."""
        item = self._items.get()
        self._taken.release()
        return item

    def close(self) -> None:
        """Nothing will be taken any more."""
        self._closed = True
        self._taken.release()


class WindowPrefetcher:
    """Batches of windows, made in a thread, one batch ahead.

    A context manager: leaving it stops the thread, wherever it is.

    Args:
        windows: a film cut up, or keyframes out of an archive; consumed in the thread.
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
    store: KeyframeStore | None = None,
    first_frame: int = 0,
) -> Iterator[Frames | None]:
    """What is seen of each frame, one for each number from `first_frame` on; None where nobody wants it.

    Args:
        frames: in order. Where a number is missing (of a film that is damaged), the frame after stands for it.
        video: facts.
        view_fn: from a frame to a picture.
        uses_frame: by how many frames after the first.
        store: gets each frame after it was looked at.
        first_frame: number of the first frame.
    """
    offset = 0
    for frame in frames:
        numbers = range(offset, frame.index - first_frame + 1)
        # Seen before the keeper has it, as two threads must not convert one picture at the same time; and with the
        # keeper before anybody else has it, as whoever sees it may ask for it at once.
        image = view_fn(frame, video) if any(map(is_wanted, numbers)) else None
        if store is not None:
            store.add_frame(frame)
        for number in numbers:
            yield image if is_wanted(number) else None
        offset = max(offset, numbers.stop)


def make_view_fn(view: View, prepare: Callable[[Frames], Frames] | None) -> Callable[[Frame, VideoFacts], Frames]:
    """How a frame is looked at: as the view has it, then prepared for the network."""

    def view_frame(frame: Frame, video: VideoFacts) -> Frames:
        image = apply_view(view, frame, video)
        return image if prepare is None else prepare(image)

    return view_frame
