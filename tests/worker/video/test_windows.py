"""Windows and clips cut from a stream of frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from worker.video.prefetch import view_frames
from worker.video.reader import Frame
from worker.video.windows import ClipSpec, Frames, WindowSpec, collect_clips, sliding_windows


def make_frame(number: int) -> Frames:
    return np.full((1, 1, 1), number, np.uint8)


@given(st.integers(0, 60), st.integers(1, 12), st.integers(0, 6), st.integers(0, 6))
def test_windows_cover_each_frame_once_and_hold_the_right_frames(count: int, step: int, lead: int, tail: int) -> None:
    spec = WindowSpec(length=lead + step + tail, step=step, lead=lead)
    windows = list(sliding_windows(map(make_frame, range(count)), spec))
    assert [n for window in windows for n in range(window.start, window.stop)] == list(range(count))
    for k, window in enumerate(windows):
        wanted = np.clip(np.arange(k * step - lead, k * step - lead + spec.length), 0, count - 1)
        assert window.frames_THWC.ravel().tolist() == wanted.tolist()


@given(st.integers(0, 60), st.integers(1, 12), st.integers(0, 6), st.integers(0, 100))
def test_windows_without_padding_hold_only_frames_of_the_video(count: int, step: int, more: int, first: int) -> None:
    spec = WindowSpec(length=step + more, step=step, pad_end=False)
    windows = list(sliding_windows(map(make_frame, range(count)), spec, first))
    assert [window.start - first for window in windows] == list(range(0, count, step))
    for window in windows:
        start = window.start - first
        assert window.frames_THWC.ravel().tolist() == list(range(start, min(start + spec.length, count)))
        assert window.stop - first == min(start + step, count)
        assert not window.padded


@given(st.integers(0, 60), st.integers(1, 4), st.integers(1, 12))
def test_frames_between_windows_are_not_used(count: int, length: int, gap: int) -> None:
    spec = WindowSpec(length, length + gap)
    used = [make_frame(n) if spec.uses_frame(n) else None for n in range(count)]
    windows = list(sliding_windows(iter(used), spec))
    assert [n for window in windows for n in range(window.start, window.stop)] == list(range(count))
    for window in windows:
        wanted = np.clip(np.arange(window.start, window.start + length), 0, count - 1)
        assert window.frames_THWC.ravel().tolist() == wanted.tolist()


@pytest.mark.parametrize(("length", "step", "lead"), [(2, 3, 1), (0, 0, 0), (4, 3, 2)])
def test_impossible_windows_are_refused(length: int, step: int, lead: int) -> None:
    with pytest.raises(ValueError, match="impossible"):
        WindowSpec(length, step, lead)


def test_windows_without_padding_have_no_lead() -> None:
    with pytest.raises(ValueError, match="impossible"):
        WindowSpec(4, 2, lead=1, pad_end=False)


@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=6), max_size=8))
def test_clips_hold_the_frames_that_they_name(named: list[list[int]]) -> None:
    clips = [ClipSpec(tuple(frames), n, n + 1) for n, frames in enumerate(named)]
    wanted = sorted({frame for frames in named for frame in frames})
    windows = list(collect_clips(((n, make_frame(n)) for n in wanted), clips))
    assert [window.frames_THWC.ravel().tolist() for window in windows] == named
    assert [(window.start, window.stop) for window in windows] == [(n, n + 1) for n in range(len(named))]


def test_a_missing_frame_is_replaced_by_the_one_before() -> None:
    clips = [ClipSpec((0, 2, 4, 6), 0, 1), ClipSpec((6, 9), 1, 2)]
    windows = list(collect_clips(((n, make_frame(n)) for n in (2, 6)), clips))
    assert [window.frames_THWC.ravel().tolist() for window in windows] == [[2, 2, 2, 6], [6, 6]]


def test_without_any_frame_there_are_no_clips() -> None:
    assert list(collect_clips(iter(()), [ClipSpec((0,), 0, 1)])) == []


def test_a_clip_is_yielded_as_soon_as_it_is_complete() -> None:
    read: list[int] = []

    def read_frames() -> object:
        for number in range(100):
            read.append(number)
            yield number, make_frame(number)

    clips = [ClipSpec(tuple(range(start, start + 10)), start, start + 10) for start in range(0, 100, 10)]
    for window in collect_clips(read_frames(), clips):  # type: ignore[arg-type]
        assert read[-1] == window.stop - 1


class RecordingSink:
    """Records the numbers of the frames that it received."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def add_frame(self, frame: Frame) -> None:
        self.numbers.append(frame.index)


def test_the_store_has_a_frame_before_it_is_yielded() -> None:
    """Otherwise a frame that is requested at once would have to be read again."""
    sink = RecordingSink()
    frames = [Frame(index, index, None) for index in (0, 1, 4)]  # type: ignore[arg-type]
    viewed = view_frames(frames, None, lambda frame, _: make_frame(frame.index), store=sink)  # type: ignore[arg-type]
    steps = [(image.item(), list(sink.numbers)) for image in viewed if image is not None]
    assert steps == [(0, [0]), (1, [0, 1]), (4, [0, 1, 4]), (4, [0, 1, 4]), (4, [0, 1, 4])]
