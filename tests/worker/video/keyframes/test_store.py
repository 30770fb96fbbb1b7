"""Keyframes do not depend on how frames were buffered, and the buffer stays within its budget."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.sample_videos import X264_OPTIONS, pattern_input, run_ffmpeg
from worker.video.keyframes.store import KeyframeStore, encode_jpeg
from worker.video.reader import Frame, VideoReader
from worker.video.transform import View, apply_view

GetVideoPath = Callable[[str], Path]
WANTED = [(0, "shot_0000_img_0.jpg"), (12, "shot_0000_img_1.jpg"), (24, "shot_0000_img_2.jpg")]
FRAME_BYTES = 160 * 120 * 3 // 2
MUCH = 2**28


def nothing(indices: Sequence[int]) -> Iterable[Frame]:
    raise AssertionError(f"frames {indices} were read again")


def store_at_the_end(path: Path, zip_file: Path, budget: int) -> KeyframeStore:
    """Keyframes that are selected only when the video has ended: the hardest case for the buffer."""
    with VideoReader(path) as reader:
        store = KeyframeStore(zip_file, reader.video, 60, budget)
        for frame in reader.read_frames():
            store.add_frame(frame)
        store.save_frames(WANTED, 50)
        store.finish_file(reader.read_frames_at)
    return store


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("budget", "again"), [(MUCH, 0), (100 * FRAME_BYTES, 0), (40 * FRAME_BYTES, None), (8 * FRAME_BYTES, None), (0, 3)]
)
@pytest.mark.parametrize("name", ["plain.mp4", "rotated.mp4", "pq.mp4", "late.ts"])
def test_the_file_does_not_depend_on_the_budget(
    name: str, budget: int, again: int | None, get_video_path: GetVideoPath, tmp_path: Path
) -> None:
    store_at_the_end(get_video_path(name), tmp_path / "held.zip", MUCH)
    store = store_at_the_end(get_video_path(name), tmp_path / "tight.zip", budget)
    assert digest(tmp_path / "tight.zip") == digest(tmp_path / "held.zip")
    if again is not None and name == "plain.mp4":
        assert store.reread_count == again


def test_the_images_equal_the_frames(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    store_at_the_end(get_video_path("plain.mp4"), tmp_path / "keys.zip", MUCH)
    with zipfile.ZipFile(tmp_path / "keys.zip") as zip_file, VideoReader(get_video_path("plain.mp4")) as reader:
        assert zip_file.testzip() is None
        assert zip_file.namelist() == [name for _, name in WANTED]
        assert {member.compress_type for member in zip_file.infolist()} == {zipfile.ZIP_STORED}
        assert {member.date_time for member in zip_file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        for frame, name in zip(reader.read_frames_at([index for index, _ in WANTED]), zip_file.namelist(), strict=True):
            stored = np.asarray(Image.open(io.BytesIO(zip_file.read(name))))
            wanted = apply_view(View.short_side(60), frame, reader.video)
            assert stored.shape == (60, 80, 3)
            assert np.array_equal(stored, np.asarray(Image.open(io.BytesIO(encode_jpeg(wanted)))))
            assert np.abs(stored.astype(int) - wanted).mean() < 25


def test_members_are_sorted_even_when_some_were_late(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    with VideoReader(get_video_path("plain.mp4")) as reader:
        store = KeyframeStore(tmp_path / "keys.zip", reader.video, 60, 4 * FRAME_BYTES)
        for frame in reader.read_frames():
            store.add_frame(frame)
            if frame.index == 30:
                store.save_frames([(30, "z.jpg"), (29, "y.jpg"), (2, "x.jpg"), (30, "a.jpg")], 10)
        store.save_frames([(49, "late.jpg"), (11, "early.jpg")], 50)
        zip_file = store.finish_file(reader.read_frames_at)
    assert store.reread_count > 0
    assert zipfile.ZipFile(zip_file).namelist() == ["x.jpg", "early.jpg", "y.jpg", "a.jpg", "z.jpg", "late.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.zip"]


def test_the_buffer_stays_within_the_budget(tmp_path: Path) -> None:
    """A shot of 600 frames: both tiers together never hold more than five quarters, and a frame."""
    run_ffmpeg(*pattern_input("320x240", "50", 12), *X264_OPTIONS, tmp_path / "long.mp4")
    weight, most = 320 * 240 * 3 // 2, 0
    with VideoReader(tmp_path / "long.mp4") as reader:
        store = KeyframeStore(tmp_path / "keys.zip", reader.video, 120, 20 * weight)
        for frame in reader.read_frames():
            store.add_frame(frame)
            most = max(most, store.buffered_bytes)
        assert reader.frames_decoded == 600
        store.save_frames([(300, "middle.jpg"), (599, "last.jpg")], 600)
        assert store.buffered_bytes == 0
        store.finish_file(reader.read_frames_at)
    assert store.reread_count == 1
    assert 10 * weight < most <= 26 * weight


def test_frames_before_the_horizon_are_dropped(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    with VideoReader(get_video_path("plain.mp4")) as reader:
        store = KeyframeStore(tmp_path / "keys.zip", reader.video, 60, MUCH)
        for frame in reader.read_frames():
            store.add_frame(frame)
            before = store.buffered_bytes
            store.save_frames([], frame.index + 1)
            assert store.buffered_bytes == 0 < before
        store.finish_file(nothing)
    assert zipfile.ZipFile(tmp_path / "keys.zip").namelist() == []


def test_a_frame_that_cannot_be_read_again(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    with VideoReader(get_video_path("plain.mp4")) as reader:
        store = KeyframeStore(tmp_path / "keys.zip", reader.video, 60, 0)
        store.add_frame(next(iter(reader.read_frames())))
        store.save_frames([(0, "a.jpg")], 1)
        with pytest.raises(KeyError, match="0"):
            store.finish_file(lambda indices: [])
        store.discard_file()
    assert not (tmp_path / "keys.zip").exists()


def test_frames_are_added_in_one_thread_and_saved_in_another(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    """The selections come at any time; the file is the same."""
    store_at_the_end(get_video_path("plain.mp4"), tmp_path / "alone.zip", MUCH)
    for round_ in range(5):
        with VideoReader(get_video_path("plain.mp4")) as reader:
            store = KeyframeStore(tmp_path / "both.zip", reader.video, 60, 10 * FRAME_BYTES)
            pushed = threading.Semaphore(0)

            def push(
                reader: VideoReader = reader, store: KeyframeStore = store, pushed: threading.Semaphore = pushed
            ) -> None:
                for frame in reader.read_frames():
                    store.add_frame(frame)
                    pushed.release()

            thread = threading.Thread(target=push)
            thread.start()
            for index in range(50):
                pushed.acquire()
                store.save_frames([pick for pick in WANTED if pick[0] == index - round_ % 3], max(0, index - 2))
            thread.join()
            store.finish_file(reader.read_frames_at)
        assert digest(tmp_path / "both.zip") == digest(tmp_path / "alone.zip")
