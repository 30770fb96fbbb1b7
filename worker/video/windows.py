"""Cut a stream of frames into windows: sliding windows of one length, or clips of named frames."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]
"""uint8 frames; the shape is in the name of the variable."""


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """How a stream of frames is cut into windows.

    Window k holds frames `k*step - lead` to `k*step - lead + length` and covers frames `k*step` to `(k+1)*step`, or to
    the end of the video. There are ceil(n / step) windows. Frames between two windows (`step > length`) are not used.

    Args:
        length: frames in a window.
        step: frames from one window to the next.
        lead: frames before those that a window covers; before the start of the video its first frame is repeated.
        pad_end: whether the last windows are filled up with the last frame; otherwise they are shorter.
    """

    length: int
    step: int
    lead: int = 0
    pad_end: bool = True

    def __post_init__(self) -> None:
        overlapping = 0 <= self.lead <= self.length - self.step
        disjoint = self.lead == 0 and self.step > self.length
        if not (self.length > 0 and self.step > 0 and (overlapping or disjoint) and (self.pad_end or not self.lead)):
            raise ValueError(f"impossible windows: {self}")

    def uses_frame(self, offset: int) -> bool:
        """Whether any window holds the frame at this offset from the first frame."""
        return self.step <= self.length or offset % self.step < self.length


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """A window of frames listed by number, in this order, repetitions allowed; it covers `start` to `stop`."""

    frames: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Window:
    """One window of frames and the frames `start` to `stop` that it covers.

    `padded`: the video ends inside the window, so it covers fewer frames than the network returns values for.
    """

    frames_THWC: Frames
    start: int
    stop: int
    padded: bool = False


def sliding_windows(frames: Iterable[Frames | None], spec: WindowSpec, first_frame: int = 0) -> Iterator[Window]:
    """Yield the windows over a stream of unknown length.

    For length 4, step 2, lead 1 and frames 0 1 2 3 4: `0 0 1 2` covers 0 1, `1 2 3 4` covers 2 3, `3 4 4 4` covers 4.

    Args:
        frames: one item for each frame; None for those that no window holds.
        spec: how they are cut.
        first_frame: number of the first frame.
    """
    buffered: list[Frames] = []
    start = count = 0
    for frame_HWC in frames:
        if frame_HWC is not None:
            buffered += [frame_HWC] * (1 if count else 1 + spec.lead)
        count += 1
        if len(buffered) >= spec.length and count >= start + spec.step:
            yield Window(np.stack(buffered), first_frame + start, first_frame + start + spec.step)
            start += spec.step
            buffered = buffered[spec.step :]
    while start < count:
        missing = spec.length - len(buffered) if spec.pad_end else 0
        window = np.stack((buffered + [buffered[-1]] * missing)[: spec.length])
        yield Window(window, first_frame + start, first_frame + min(start + spec.step, count), padded=missing > 0)
        start += spec.step
        buffered = buffered[spec.step :] or buffered[-1:]


def collect_clips(frames: Iterable[tuple[int, Frames]], clips: Sequence[ClipSpec]) -> Iterator[Window]:
    """Yield the windows of some clips, in the order of the clips, each as soon as all its frames have arrived.

    Args:
        frames: (number, frame) in ascending order, of every frame that a clip names. A missing frame (it could not be
            decoded) is replaced by the one before it; the first one by the one after it.
        clips: in any order; least memory is needed when they are in the order of the video.
    """
    uses = Counter(wanted for clip in clips for wanted in clip.frames)
    pending_frames, pending_clips = deque(sorted(uses)), deque(clips)
    buffered: dict[int, Frames] = {}
    previous: Frames | None = None
    for number, image in frames:
        while pending_frames and pending_frames[0] <= number:
            wanted = pending_frames.popleft()
            buffered[wanted] = image if wanted == number or previous is None else previous
        previous = image
        yield from _emit_complete_clips(pending_clips, buffered, uses)
    if previous is not None:
        buffered |= dict.fromkeys(pending_frames, previous)
        yield from _emit_complete_clips(pending_clips, buffered, uses)


def _emit_complete_clips(
    pending_clips: deque[ClipSpec], buffered: dict[int, Frames], uses: Counter[int]
) -> Iterator[Window]:
    """Yield the windows whose frames are all buffered, and drop frames that no other clip needs."""
    while pending_clips and buffered.keys() >= set(pending_clips[0].frames):
        clip = pending_clips.popleft()
        yield Window(np.stack([buffered[frame] for frame in clip.frames]), clip.start, clip.stop)
        uses.subtract(clip.frames)
        for frame in set(clip.frames):
            if not uses[frame]:
                del buffered[frame]
