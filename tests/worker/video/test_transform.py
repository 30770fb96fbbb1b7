"""What a network sees: bit for bit what the published pipelines see, turned and squared exactly once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame

from shared.values import Video
from tests.worker.video.films import ffmpeg
from worker.video.probe import probe
from worker.video.reader import Frame, Reader
from worker.video.transform import Picture, View, factor, see

Film = Callable[[str], Path]


def noise(width: int, height: int, pixel_format: str) -> Frame:
    """A picture in which every sample differs from its neighbours."""
    seen = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Frame(0, 0, VideoFrame.from_ndarray(seen, format="rgb24").reformat(format=pixel_format))


def first(path: Path, index: int = 0) -> tuple[Frame, Video]:
    with Reader(path) as reader:
        (frame,) = reader.at([index])
        return frame, reader.video


def by_ffmpeg(path: Path, *, pixel_format: str = "rgb24", filters: str = "null") -> bytes:
    """The first frame as ffmpeg shows it, turned."""
    return ffmpeg("-i", path, "-frames:v", "1", "-vf", filters, "-pix_fmt", pixel_format, "-f", "rawvideo", "-")


def difference(one: Picture, other: Picture) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize(
    ("width", "step"),
    [
        (4096, 12),
        (3200, 12),
        (3199, 8),
        (2100, 8),
        (1920, 6),
        (1699, 5),
        (1280, 5),
        (1199, 4),
        (720, 3),
        (599, 2),
        (399, 1),
    ],
)
def test_the_step_by_the_width(width: int, step: int) -> None:
    assert factor(width) == step


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "nv12"])
@pytest.mark.parametrize(
    "size", [(3840, 240), (1920, 1080), (1280, 720), (1002, 766), (640, 361), (401, 302), (176, 144)]
)
def test_thinning_before_converting_changes_nothing(
    size: tuple[int, int], pixel_format: str, turn: int, film: Film
) -> None:
    """Every f-th pixel of the whole picture in BGR, whichever way it was reached."""
    frame = noise(*size, pixel_format)
    video = replace(probe(film("plain.mp4")), rotation=turn)
    whole = np.rot90(frame.picture.to_ndarray(format="bgr24"), turn // 90)
    step = factor(whole.shape[1])
    assert difference(see(View.subsampled(), frame, video), whole[::step, ::step]) == 0


@pytest.mark.parametrize("name", ["plain.mp4", "rotated.mp4", "xvid.avi", "wide.mp4"])
def test_subsampled_is_what_opencv_reads(name: str, film: Film, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "wide.mp4":
        source = ("-f", "lavfi", "-i", "testsrc2=s=1280x720:r=25:d=0.2")
        ffmpeg(*source, "-c:v", "libx264", "-colorspace", "bt709", "-color_range", "tv", path)
    else:
        path = film(name)
    capture = cv2.VideoCapture(str(path))
    with Reader(path) as reader:
        for frame in reader.frames(0, 4):
            read, whole = capture.read()
            assert read
            step = factor(whole.shape[1])
            seen = see(View.subsampled(), frame, reader.video)
            assert difference(seen, np.asarray(whole[::step, ::step], np.uint8)) == 0
    capture.release()


@pytest.mark.parametrize("name", ["plain.mp4", "rotated.mp4", "interlaced.mpg"])
def test_full_is_what_ffmpeg_shows(name: str, film: Film) -> None:
    frame, video = first(film(name))
    seen = see(View.full(), frame, video)
    assert seen.shape == (video.height, video.width, 3)
    shown = np.frombuffer(by_ffmpeg(film(name)), np.uint8).reshape(seen.shape)
    assert difference(seen, shown) <= 1


def test_scaled_is_what_ffmpeg_scales(film: Film) -> None:
    frame, video = first(film("plain.mp4"))
    seen = see(View.scaled(48, 27), frame, video)
    shown = by_ffmpeg(film("plain.mp4"), filters="scale=48:27:flags=fast_bilinear:in_chroma_loc=left")
    assert difference(seen, np.frombuffer(shown, np.uint8).reshape(27, 48, 3)) == 0


def test_scaled_is_turned_once(film: Film) -> None:
    frame, video = first(film("rotated.mp4"))
    upright = see(View.scaled(48, 28), frame, replace(video, rotation=0))
    assert np.array_equal(see(View.scaled(28, 48), frame, video), np.rot90(upright))


def test_pixels_are_squared_once(film: Film) -> None:
    frame, video = first(film("anamorphic.mp4"))
    assert see(View.full(), frame, video).shape == (120, 213, 3)
    assert see(View.short_side(60), frame, video).shape == (60, 106, 3)
    assert see(View.scaled(48, 27), frame, video).shape == (27, 48, 3)
    assert see(View.subsampled(), frame, video).shape == (120, 160, 3)
    turned = replace(video, rotation=270, width=120, height=213)
    assert see(View.full(), frame, turned).shape == (213, 120, 3)
    narrow = replace(video, sample_aspect_ratio=1 / video.sample_aspect_ratio)
    assert see(View.full(), frame, narrow).shape == (160, 160, 3)


def test_short_side_never_enlarges(film: Film) -> None:
    frame, video = first(film("plain.mp4"))
    assert see(View.short_side(256), frame, video).shape == (120, 160, 3)
    assert see(View.short_side(60), frame, video).shape == (60, 80, 3)
    frame, video = first(film("rotated.mp4"))
    assert see(View.short_side(60), frame, video).shape == (80, 60, 3)


@pytest.mark.parametrize("view", [View.scaled(48, 27), View.short_side(64), View.subsampled(), View.full()])
def test_pictures_are_contiguous_and_the_frame_is_left_alone(view: View, film: Film) -> None:
    for name in ("plain.mp4", "rotated.mp4", "pq.mp4"):
        frame, video = first(film(name))
        before = [bytes(plane) for plane in frame.picture.planes]
        tags = (frame.picture.colorspace, frame.picture.color_trc, frame.picture.color_primaries)
        seen = see(view, frame, video)
        assert seen.dtype == np.uint8
        assert seen.flags.c_contiguous
        assert np.array_equal(seen, see(view, frame, video))
        assert [bytes(plane) for plane in frame.picture.planes] == before
        assert (frame.picture.colorspace, frame.picture.color_trc, frame.picture.color_primaries) == tags


def test_ten_bits_become_eight(film: Film) -> None:
    frame, video = first(film("deep.mkv"))
    shown = np.frombuffer(by_ffmpeg(film("deep.mkv"), filters="scale=in_chroma_loc=left"), np.uint8).reshape(
        120, 160, 3
    )
    assert difference(see(View.full(), frame, video), shown) <= 2


def test_high_dynamic_range_is_tone_mapped(tmp_path: Path) -> None:
    """A grey ramp in PQ: reference white (203 cd/m2, ITU-R BT.2408: 58 % of the signal) is bright, order is kept."""
    colours = "log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:lossless=1"
    ramp = "geq=lum='64+X*876/255':cb=512:cr=512"
    source = ("-f", "lavfi", "-i", "nullsrc=s=256x64:r=25:d=0.04,format=yuv420p10le," + ramp)
    tags = ("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc")
    ffmpeg(*source, "-c:v", "libx265", "-x265-params", colours, *tags, tmp_path / "ramp.mp4")
    frame, video = first(tmp_path / "ramp.mp4")
    assert video.transfer == "smpte2084"
    seen = see(View.full(), frame, video)[32].astype(int)
    assert np.ptp(seen, axis=1).max() <= 3
    assert (np.diff(seen.mean(axis=1)) >= -2).all()
    assert seen[2].mean() < 20
    assert 150 < seen[148].mean() < 256
    unmapped = see(View.subsampled(), frame, video)[32].astype(int)
    assert seen[148].mean() > unmapped[148].mean() + 10
