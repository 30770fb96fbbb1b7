"""Frames cut into windows, a batch ahead: the decoder works in a thread while the device works on what it has."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Self

import numpy as np
import numpy.typing as npt

from shared.values import Video
from worker.video.pictures.keep import Keeper
from worker.video.reader import Frame
from worker.video.transform import View, see

Frames = npt.NDArray[np.uint8]
"""uint8 frames; the shape is in the name of the variable."""


@dataclass(frozen=True, slots=True)
class Windows:
    """How the stream of frames is cut into windows.

    Window k holds frames `k*step - lead` to `k*step - lead + length` and answers for frames `k*step` to `(k+1)*step`,
    or to the end of the film. There are ceil(n / step) windows. Frames between two windows (`step > length`) are never
    looked at.

    Args:
        length: frames in a window.
        step: frames from one window to the next.
        lead: frames before those that a window answers for; the first frame of the film stands for what is not there.
        filled: what reaches past the end is filled with the last frame; otherwise the last windows are shorter.
    """

    length: int
    step: int
    lead: int = 0
    filled: bool = True

    def __post_init__(self) -> None:
        overlapping = 0 <= self.lead <= self.length - self.step
        apart = self.lead == 0 and self.step > self.length
        if not (self.length > 0 and self.step > 0 and (overlapping or apart) and (self.filled or not self.lead)):
            raise ValueError(f"impossible windows: {self}")

    def wants(self, offset: int) -> bool:
        """Whether a window holds the frame so many after the first."""
        return self.step <= self.length or offset % self.step < self.length


@dataclass(frozen=True, slots=True)
class Clip:
    """A window of frames named one by one, in this order, each as often as wanted; its piece is `start` to `stop`."""

    frames: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Window:
    """One window of frames and the frames `start` to `stop` that it answers for.

    `filled`: it answers for fewer frames than its network will, as the film ends inside it.
    """

    frames_THWC: Frames
    start: int
    stop: int
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows that go through the network together."""

    windows: tuple[Window, ...]


def cut(pictures: Iterable[Frames | None], spec: Windows, first: int = 0) -> Iterator[Window]:
    """Windows over a stream of unknown length.

    For length 4, step 2, lead 1 and frames 0 1 2 3 4: `0 0 1 2` answers for 0 1, `1 2 3 4` for 2 3, `3 4 4 4` for 4.

    Args:
        pictures: one for each frame; None for those that no window wants.
        spec: how they are cut.
        first: number of the first frame.
    """
    held: list[Frames] = []
    start = seen = 0
    for picture_HWC in pictures:
        if picture_HWC is not None:
            held += [picture_HWC] * (1 if seen else 1 + spec.lead)
        seen += 1
        if len(held) >= spec.length and seen >= start + spec.step:
            yield Window(np.stack(held), first + start, first + start + spec.step)
            start += spec.step
            held = held[spec.step :]
    while start < seen:
        missing = spec.length - len(held) if spec.filled else 0
        window = np.stack((held + [held[-1]] * missing)[: spec.length])
        yield Window(window, first + start, first + min(start + spec.step, seen), filled=missing > 0)
        start += spec.step
        held = held[spec.step :] or held[-1:]


def gather(pictures: Iterable[tuple[int, Frames]], clips: Sequence[Clip]) -> Iterator[Window]:
    """The windows of some clips, in their order, each as soon as its frames were met.

    Args:
        pictures: (number, picture) in ascending order, of every frame that a clip names. For one that is missing, as it
            could not be decoded, stands the one before it; for the first, the one after.
        clips: in any order; what is held is least where they follow the film.
    """
    uses = Counter(frame for clip in clips for frame in clip.frames)
    wanted, waiting = deque(sorted(uses)), deque(clips)
    held: dict[int, Frames] = {}
    before: Frames | None = None
    for number, picture in pictures:
        while wanted and wanted[0] <= number:
            frame = wanted.popleft()
            held[frame] = picture if frame == number or before is None else before
        before = picture
        yield from _complete(waiting, held, uses)
    if before is not None:
        held |= dict.fromkeys(wanted, before)
        yield from _complete(waiting, held, uses)


def _complete(waiting: deque[Clip], held: dict[int, Frames], uses: Counter[int]) -> Iterator[Window]:
    """The windows whose frames are there; frames that no other clip wants are let go."""
    while waiting and held.keys() >= set(waiting[0].frames):
        clip = waiting.popleft()
        yield Window(np.stack([held[frame] for frame in clip.frames]), clip.start, clip.stop)
        uses.subtract(clip.frames)
        for frame in set(clip.frames):
            if not uses[frame]:
                del held[frame]


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


def seen(
    frames: Iterable[Frame],
    video: Video,
    look: Callable[[Frame, Video], Frames],
    wants: Callable[[int], bool] = lambda _: True,
    keeper: Keeper | None = None,
    first: int = 0,
) -> Iterator[Frames | None]:
    """What is seen of each frame, one for each number from `first` on; None where nobody wants it.

    Args:
        frames: in order. Where a number is missing (of a film that is damaged), the frame after stands for it.
        video: facts.
        look: from a frame to a picture.
        wants: by how many frames after the first.
        keeper: gets each frame after it was looked at.
        first: number of the first frame.
    """
    offset = 0
    for frame in frames:
        numbers = range(offset, frame.index - first + 1)
        # Seen before the keeper has it, as two threads must not convert one picture at the same time; and with the
        # keeper before anybody else has it, as whoever sees it may ask for it at once.
        picture = look(frame, video) if any(map(wants, numbers)) else None
        if keeper is not None:
            keeper.push(frame)
        for number in numbers:
            yield picture if wants(number) else None
        offset = max(offset, numbers.stop)


def looking(view: View, prepare: Callable[[Frames], Frames] | None) -> Callable[[Frame, Video], Frames]:
    """How a frame is looked at: as the view has it, then prepared for the network."""

    def look(frame: Frame, video: Video) -> Frames:
        picture = see(view, frame, video)
        return picture if prepare is None else prepare(picture)

    return look
