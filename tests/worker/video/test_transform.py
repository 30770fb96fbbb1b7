"""What a network sees: bit for bit what the published pipelines see, rotated and aspect-corrected exactly once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame

from shared.values import VideoFacts
from tests.support.sample_videos import run_ffmpeg
from worker.video.probe import probe_video
from worker.video.reader import Frame, VideoReader
from worker.video.transform import ImageArray, View, apply_view, subsampling_step

GetVideoPath = Callable[[str], Path]


def make_noise_frame(width: int, height: int, pixel_format: str) -> Frame:
    """A frame in which every sample differs from its neighbours."""
    image = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Frame(0, 0, VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixel_format))


def read_first_frame(path: Path, index: int = 0) -> tuple[Frame, VideoFacts]:
    with VideoReader(path) as reader:
        (frame,) = reader.read_frames_at([index])
        return frame, reader.video


def read_with_ffmpeg(path: Path, *, pixel_format: str = "rgb24", filters: str = "null") -> bytes:
    """The first frame as ffmpeg shows it, rotated."""
    return run_ffmpeg("-i", path, "-frames:v", "1", "-vf", filters, "-pix_fmt", pixel_format, "-f", "rawvideo", "-")


def difference(one: ImageArray, other: ImageArray) -> int:
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
def test_the_subsampling_step_of_a_width(width: int, step: int) -> None:
    assert subsampling_step(width) == step


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "nv12"])
@pytest.mark.parametrize(
    "size", [(3840, 240), (1920, 1080), (1280, 720), (1002, 766), (640, 361), (401, 302), (176, 144)]
)
def test_subsampling_before_conversion_changes_nothing(
    size: tuple[int, int], pixel_format: str, turn: int, get_video_path: GetVideoPath
) -> None:
    """Every f-th pixel of the whole frame in BGR, whichever way it was reached."""
    frame = make_noise_frame(*size, pixel_format)
    video = replace(probe_video(get_video_path("plain.mp4")), rotation=turn)
    full = np.rot90(frame.av_frame.to_ndarray(format="bgr24"), turn // 90)
    step = subsampling_step(full.shape[1])
    assert difference(apply_view(View.subsampled_bgr(), frame, video), full[::step, ::step]) == 0


@pytest.mark.parametrize("name", ["plain.mp4", "rotated.mp4", "xvid.avi", "wide.mp4"])
def test_subsampled_is_what_opencv_reads(name: str, get_video_path: GetVideoPath, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "wide.mp4":
        source = ("-f", "lavfi", "-i", "testsrc2=s=1280x720:r=25:d=0.2")
        run_ffmpeg(*source, "-c:v", "libx264", "-colorspace", "bt709", "-color_range", "tv", path)
    else:
        path = get_video_path(name)
    capture = cv2.VideoCapture(str(path))
    with VideoReader(path) as reader:
        for frame in reader.read_frames(0, 4):
            read, full = capture.read()
            assert read
            step = subsampling_step(full.shape[1])
            image = apply_view(View.subsampled_bgr(), frame, reader.video)
            assert difference(image, np.asarray(full[::step, ::step], np.uint8)) == 0
    capture.release()


@pytest.mark.parametrize("name", ["plain.mp4", "rotated.mp4", "interlaced.mpg"])
def test_full_is_what_ffmpeg_shows(name: str, get_video_path: GetVideoPath) -> None:
    frame, video = read_first_frame(get_video_path(name))
    image = apply_view(View.full_size(), frame, video)
    assert image.shape == (video.height, video.width, 3)
    expected = np.frombuffer(read_with_ffmpeg(get_video_path(name)), np.uint8).reshape(image.shape)
    assert difference(image, expected) <= 1


def test_scaled_is_what_ffmpeg_scales(get_video_path: GetVideoPath) -> None:
    frame, video = read_first_frame(get_video_path("plain.mp4"))
    image = apply_view(View.scaled_to(48, 27), frame, video)
    filters = "scale=48:27:flags=fast_bilinear:in_chroma_loc=left"
    expected = read_with_ffmpeg(get_video_path("plain.mp4"), filters=filters)
    assert difference(image, np.frombuffer(expected, np.uint8).reshape(27, 48, 3)) == 0


def test_scaled_is_rotated_once(get_video_path: GetVideoPath) -> None:
    frame, video = read_first_frame(get_video_path("rotated.mp4"))
    upright = apply_view(View.scaled_to(48, 28), frame, replace(video, rotation=0))
    assert np.array_equal(apply_view(View.scaled_to(28, 48), frame, video), np.rot90(upright))


def test_pixel_aspect_is_corrected_once(get_video_path: GetVideoPath) -> None:
    frame, video = read_first_frame(get_video_path("anamorphic.mp4"))
    assert apply_view(View.full_size(), frame, video).shape == (120, 213, 3)
    assert apply_view(View.short_side(60), frame, video).shape == (60, 106, 3)
    assert apply_view(View.scaled_to(48, 27), frame, video).shape == (27, 48, 3)
    assert apply_view(View.subsampled_bgr(), frame, video).shape == (120, 160, 3)
    turned = replace(video, rotation=270, width=120, height=213)
    assert apply_view(View.full_size(), frame, turned).shape == (213, 120, 3)
    narrow = replace(video, sample_aspect_ratio=1 / video.sample_aspect_ratio)
    assert apply_view(View.full_size(), frame, narrow).shape == (160, 160, 3)


def test_short_side_never_enlarges(get_video_path: GetVideoPath) -> None:
    frame, video = read_first_frame(get_video_path("plain.mp4"))
    assert apply_view(View.short_side(256), frame, video).shape == (120, 160, 3)
    assert apply_view(View.short_side(60), frame, video).shape == (60, 80, 3)
    frame, video = read_first_frame(get_video_path("rotated.mp4"))
    assert apply_view(View.short_side(60), frame, video).shape == (80, 60, 3)


@pytest.mark.parametrize("view", [View.scaled_to(48, 27), View.short_side(64), View.subsampled_bgr(), View.full_size()])
def test_images_are_contiguous_and_the_frame_is_unchanged(view: View, get_video_path: GetVideoPath) -> None:
    for name in ("plain.mp4", "rotated.mp4", "pq.mp4"):
        frame, video = read_first_frame(get_video_path(name))
        before = [bytes(plane) for plane in frame.av_frame.planes]
        tags = (frame.av_frame.colorspace, frame.av_frame.color_trc, frame.av_frame.color_primaries)
        image = apply_view(view, frame, video)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert np.array_equal(image, apply_view(view, frame, video))
        assert [bytes(plane) for plane in frame.av_frame.planes] == before
        assert (frame.av_frame.colorspace, frame.av_frame.color_trc, frame.av_frame.color_primaries) == tags


def test_ten_bits_become_eight(get_video_path: GetVideoPath) -> None:
    frame, video = read_first_frame(get_video_path("deep.mkv"))
    output = read_with_ffmpeg(get_video_path("deep.mkv"), filters="scale=in_chroma_loc=left")
    expected = np.frombuffer(output, np.uint8).reshape(120, 160, 3)
    assert difference(apply_view(View.full_size(), frame, video), expected) <= 2


def test_high_dynamic_range_is_tone_mapped(tmp_path: Path) -> None:
    """A grey ramp in PQ: reference white (203 cd/m2, ITU-R BT.2408: 58 % of the signal) is bright, order is kept."""
    colours = "log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:lossless=1"
    ramp = "geq=lum='64+X*876/255':cb=512:cr=512"
    source = ("-f", "lavfi", "-i", "nullsrc=s=256x64:r=25:d=0.04,format=yuv420p10le," + ramp)
    tags = ("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc")
    run_ffmpeg(*source, "-c:v", "libx265", "-x265-params", colours, *tags, tmp_path / "ramp.mp4")
    frame, video = read_first_frame(tmp_path / "ramp.mp4")
    assert video.transfer == "smpte2084"
    image = apply_view(View.full_size(), frame, video)[32].astype(int)
    assert np.ptp(image, axis=1).max() <= 3
    assert (np.diff(image.mean(axis=1)) >= -2).all()
    assert image[2].mean() < 20
    assert 150 < image[148].mean() < 256
    unmapped = apply_view(View.subsampled_bgr(), frame, video)[32].astype(int)
    assert image[148].mean() > unmapped[148].mean() + 10
