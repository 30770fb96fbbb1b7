"""Videos and clips made by ffmpeg: exact to the frame, playable everywhere, and quiet about paths when they fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from shared.errors import Internal, MediaCorrupt
from worker.video.probe import probe_video
from worker.video.reader import VideoReader
from worker.video.render import cut_clip, write_video
from worker.video.transform import View, apply_view

GetVideoPath = Callable[[str], Path]
ImageArray = npt.NDArray[np.uint8]


def read_images(path: Path) -> list[ImageArray]:
    with VideoReader(path) as reader:
        return [apply_view(View.full_size(), frame, reader.video) for frame in reader.read_frames()]


def find_nearest(image: ImageArray, images: list[ImageArray]) -> int:
    """Number of the most similar image."""
    return int(np.argmin([np.abs(image.astype(int) - other).mean() for other in images]))


@pytest.mark.parametrize(
    "name", ["plain.mp4", "edited.mp4", "late.ts", "vfr.mp4", "rotated.mp4", "raw.h264", "vp8.webm"]
)
@pytest.mark.parametrize("span", [(0, 4), (11, 24), (-3, None)], ids=["start", "middle", "end"])
def test_a_clip_is_exact_to_the_frame(
    name: str, span: tuple[int, int | None], get_video_path: GetVideoPath, tmp_path: Path
) -> None:
    whole = read_images(get_video_path(name))
    start, stop, _ = slice(*span).indices(len(whole))
    with VideoReader(get_video_path(name)) as reader:
        assert sum(1 for _ in reader.read_frames()) == len(whole)
        wanted = reader.timeline.time_range(start, stop)
        out = cut_clip(reader, wanted, tmp_path / "clip.mp4")
    cut = read_images(out)
    assert [find_nearest(image, whole) for image in cut] == list(range(start, stop))
    video = probe_video(out)
    assert (video.width, video.height, video.rotation) == (*whole[0].shape[1::-1], 0)
    assert abs(video.duration - wanted.seconds) < Fraction(1, 20)


def test_a_clip_keeps_its_sound_and_can_start_at_once(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    with VideoReader(get_video_path("plain.mp4")) as reader:
        assert sum(1 for _ in reader.read_frames()) == 50
        out = cut_clip(reader, reader.timeline.time_range(10, 35), tmp_path / "clip.mp4")
        with pytest.raises(ValueError, match="at least one frame"):
            cut_clip(reader, reader.timeline.time_range(5, 5), tmp_path / "empty.mp4")
    assert [track.codec for track in probe_video(out).audio] == ["aac"]
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def colours(height: int, width: int) -> Iterator[ImageArray]:
    for at in range(10):
        image = np.empty((height, width, 3), np.uint8)
        image[:] = (25 * at, 128, 255 - 25 * at)
        yield image


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (64, 97)])
def test_a_video_of_images(size: tuple[int, int], tmp_path: Path) -> None:
    out = write_video(colours(*size), tmp_path / "video.mp4", Fraction(30000, 1001))
    video = probe_video(out)
    assert (video.frames, video.clock.fps, video.transfer, video.pixel_format) == (
        10,
        Fraction(30000, 1001),
        "bt709",
        "yuv420p",
    )
    assert (video.height, video.width) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    for decoded, original in zip(read_images(out), colours(*size), strict=True):
        assert np.abs(decoded[: size[0], : size[1]].astype(int) - original).max() <= 6
        assert np.abs(decoded[-1, -1].astype(int) - original[-1, -1]).max() <= 6


def test_images_must_have_one_size(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        write_video([], tmp_path / "video.mp4", Fraction(25))
    with pytest.raises(ValueError, match="in a video of"):
        write_video([*colours(64, 64), *colours(32, 32)], tmp_path / "video.mp4", Fraction(25))
    assert not (tmp_path / "video.mp4").exists()


def test_a_failure_names_no_path(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    absent = tmp_path / "absent" / "out.mp4"
    with pytest.raises(Internal) as failed:
        write_video(colours(64, 64), absent, Fraction(25))
    assert str(tmp_path) not in failed.value.detail
    with VideoReader(get_video_path("plain.mp4")) as reader:
        whole = reader.read_frames()
        assert sum(1 for _ in whole) == 50
        wanted = reader.timeline.time_range(0, 5)
        with pytest.raises(Internal) as failed:
            cut_clip(reader, wanted, absent)
        assert str(tmp_path) not in failed.value.detail
        reader.path = tmp_path / "text.mp4"
        reader.path.write_text("no video at all\n" * 100)
        with pytest.raises(MediaCorrupt) as unreadable:
            cut_clip(reader, wanted, tmp_path / "out.mp4")
    assert str(tmp_path) not in unreadable.value.detail
