"""Videos of ranges of a video: every frame is the right one at the right time, and so is the sound."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import iscc_samples
import numpy as np
import numpy.typing as npt
import pytest

from shared.errors import Internal, MediaCorrupt
from shared.values import TimeRange
from tests.support.sample_videos import VIDEO_MAKERS, X264_OPTIONS, pattern_input, run_ffmpeg, write_damaged
from worker.video.probe import probe_video
from worker.video.reader import VideoReader
from worker.video.render import concatenate_ranges, write_video
from worker.video.transform import ImageArray, View, apply_view

GetVideoPath = Callable[[str], Path]
Spans = list[tuple[int, int]]
CLIPS = {path.suffix: path for path in iscc_samples.videos() if path.suffix not in {".ogg", ".ogv"}}
"""FFmpeg's Theora decoder gives up on most packets of those two, and not on the same ones each time."""
BEEPS = {
    "beeps.mp4": ("30000/1001", "-c:a", "aac"),
    "beeps.ts": ("25", "-c:a", "mp2", "-output_ts_offset", "10"),
    "beeps.mkv": ("24000/1001", "-c:a", "libvorbis", "-ac", "2"),
    "beeps.webm": ("24", "-c:a", "libopus", "-pix_fmt", "yuv420p"),
    "beeps.avi": ("25", "-bf", "0", "-c:a", "pcm_s16le", "-ar", "37800"),
}
"""Twenty seconds with a beep of 50 ms at each full second: rate of the frames, and how the sound is kept."""


def read_images(path: Path) -> list[ImageArray]:
    with VideoReader(path) as reader:
        return [apply_view(View.short_side(120), frame, reader.video) for frame in reader.read_frames()]


def times(path: Path) -> list[Fraction]:
    """Seconds of every frame, and the end."""
    with VideoReader(path) as reader:
        count = sum(1 for _ in reader.read_frames())
        return [reader.timeline.moment_at(frame).seconds for frame in range(count + 1)]


def find_nearest(image: ImageArray, images: list[ImageArray]) -> int:
    """Number of the most similar image."""
    return int(np.argmin([np.abs(image.astype(int) - other).mean() for other in images]))


def summarised(path: Path, spans: Spans, out: Path) -> tuple[Path, list[TimeRange]]:
    """The video of these frames, and their ranges."""
    with VideoReader(path) as reader:
        assert sum(1 for _ in reader.read_frames()) >= spans[-1][1]
        ranges = [reader.timeline.time_range(*span) for span in spans]
        written, before = concatenate_ranges(reader, ranges, out), len(reader.timeline)
        assert before >= spans[-1][1], "the caller's timeline was touched"
    return written, ranges


def expected_times(path: Path, spans: Spans) -> list[Fraction]:
    """When each frame of the summary begins, and the end of the last."""
    there = times(path)
    lengths = [there[stop] - there[start] for start, stop in spans]
    begins = [Fraction(0), *accumulate(lengths)]
    shown = [
        begin + there[k] - there[span[0]] for begin, span in zip(begins, spans, strict=False) for k in range(*span)
    ]
    return [*shown, begins[-1]]


@pytest.mark.parametrize("name", sorted(VIDEO_MAKERS.keys() - {"one_frame.mp4"}))
def test_every_frame_is_the_right_one_at_its_time(name: str, get_video_path: GetVideoPath, tmp_path: Path) -> None:
    whole = read_images(get_video_path(name))
    last = len(whole)
    spans = [(0, 4), (5, 6), (last // 3, last // 2), (last - 3, last)]
    out, _ = summarised(get_video_path(name), spans, tmp_path / "cuts.mp4")
    expected = [frame for span in spans for frame in range(*span)]
    assert [find_nearest(image, whole) for image in read_images(out)] == expected
    assert times(out) == expected_times(get_video_path(name), spans)
    video, source = probe_video(out), probe_video(get_video_path(name))
    assert (video.width, video.height, video.rotation) == (source.width, source.height, 0)
    assert (video.pixel_format, video.codec, video.transfer) == ("yuv420p", "h264", source.transfer)
    assert len(video.audio) == len(source.audio)
    assert video.start_time == 0
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("ending", sorted(CLIPS))
def test_every_container(ending: str, tmp_path: Path) -> None:
    """Frames counted, the first and last of each range looked at, the length that of the ranges to a tick or two."""
    spans = [(0, 9), (12, 16), (18, 22), (23, 34)]
    out, ranges = summarised(CLIPS[ending], spans, tmp_path / "cuts.mp4")
    written, source = probe_video(out), probe_video(CLIPS[ending])
    assert written.frames == 28
    assert abs(written.duration - sum(span.seconds for span in ranges)) <= 2 * len(spans) * source.clock.time_base
    assert [(track.codec, track.channels) for track in written.audio] == [("aac", s.channels) for s in source.audio]
    with VideoReader(CLIPS[ending]) as reader:
        around = {f.index: apply_view(View.short_side(120), f, reader.video) for f in reader.read_frames(0, 40)}
    images, position = read_images(out), 0
    for start, stop in spans:
        for place, frame in ((position, start), (position + stop - start - 1, stop - 1)):
            near = [k for k in range(frame - 2, frame + 3) if k in around]
            assert near[find_nearest(images[place], [around[k] for k in near])] == frame
        position += stop - start


@pytest.fixture(scope="module")
def beeps(tmp_path_factory: pytest.TempPathFactory) -> GetVideoPath:
    folder = tmp_path_factory.mktemp("beeps")

    def get_path(name: str) -> Path:
        rate, *rest = BEEPS[name]
        codec = ("-c:v", "libvpx", "-deadline", "realtime") if name.endswith("webm") else X264_OPTIONS
        tone = "aevalsrc=sin(2*PI*1000*t)*lt(mod(t\\,1)\\,0.05):s=48000:d=20"
        if not (folder / name).exists():
            run_ffmpeg(*pattern_input(rate=rate, seconds=20), "-f", "lavfi", "-i", tone, *codec, *rest, folder / name)
        return folder / name

    return get_path


def beginnings(path: Path) -> npt.NDArray[np.float64]:
    """Seconds (since the first frame, which begins the file) at which sound begins after at least 0.1 s of none."""
    sound = np.abs(
        np.frombuffer(run_ffmpeg("-i", path, "-map", "0:a", "-ac", "1", "-ar", "48000", "-f", "f32le", "-"), "<f4")
    )
    loud = np.flatnonzero(sound > 0.25 * sound.max()) / 48000
    return loud[np.diff(loud, prepend=-1) > 0.1]


@pytest.mark.parametrize("name", BEEPS)
def test_sound_stays_in_sync(name: str, beeps: GetVideoPath, tmp_path: Path) -> None:
    """Forty ranges of uneven length, each begun anew: the last beep is as near to its frame as the first."""
    spans = [(frame, frame + 5 + frame % 4) for frame in range(3, 460, 11)]
    out, ranges = summarised(beeps(name), spans, tmp_path / "cuts.mp4")
    begins = [float(begin) for begin in accumulate((span.seconds for span in ranges), initial=Fraction(0))]
    late = Fraction(name == "beeps.avi", 25)  # there the first frame is shown a frame after the sound begins
    expected = [
        begin + float(second - late - span.start.seconds)
        for begin, span in zip(begins, ranges, strict=False)
        for second in range(20)
        if span.start.seconds <= second - late < span.end.seconds - Fraction(1, 100)
    ]
    heard = beginnings(out)
    assert len(expected) >= 5
    assert all(np.abs(heard - time).min() < 0.008 for time in expected), (heard, expected)
    [track] = probe_video(out).audio
    assert track.sample_rate == 48000  # AAC has no 37,800


def test_sound_that_begins_late_or_ends_early_is_silence(tmp_path: Path) -> None:
    """Sound from 1.5 s to 2.5 s of a video of 4 s: what lies outside is silent, and no time is lost."""
    path = tmp_path / "some.mkv"
    run_ffmpeg(
        *pattern_input(seconds=4),
        "-itsoffset",
        "1.5",
        "-f",
        "lavfi",
        "-i",
        "sine=d=1",
        *X264_OPTIONS,
        "-c:a",
        "flac",
        path,
    )
    out, _ = summarised(path, [(0, 10), (25, 50), (55, 60), (80, 100)], tmp_path / "cuts.mp4")
    raw = np.frombuffer(run_ffmpeg("-i", out, "-map", "0:a", "-f", "f32le", "-"), "<f4")
    assert abs(len(raw) / 44100 - 2.4) < 0.03
    loud = np.abs(raw).reshape(-1)[: 44100 * 2].reshape(200, -1).max(1) > 0.05  # in pieces of 10 ms
    assert np.flatnonzero(loud)[0] in range(88, 92)  # 0.4 s of nothing, 0.5 s before it begins
    assert loud[92:138].all()
    assert not loud[162:].any()  # 0.2 s more from the third range


def test_invalid_ranges_are_refused(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    with VideoReader(get_video_path("plain.mp4")) as reader:
        assert sum(1 for _ in reader.read_frames()) == 50
        ranges = [reader.timeline.time_range(*span) for span in [(0, 5), (5, 9), (8, 12), (3, 3)]]
        for wrong in ([], [ranges[3]], [ranges[1], ranges[0]], [ranges[1], ranges[2]]):
            with pytest.raises(ValueError, match="range"):
                concatenate_ranges(reader, wrong, tmp_path / "cuts.mp4")
        with pytest.raises(Internal) as failed:
            concatenate_ranges(reader, ranges[:2], tmp_path / "absent" / "cuts.mp4")
    assert str(tmp_path) not in failed.value.detail
    assert not (tmp_path / "cuts.mp4").exists()


def test_progress_is_reported_and_can_cancel(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    reports: list[tuple[int, int]] = []

    def report_progress(done: int, of: int) -> None:
        reports.append((done, of))
        if done >= 32:
            raise Stopped

    with VideoReader(get_video_path("plain.mp4")) as reader:
        assert sum(1 for _ in reader.read_frames()) == 50
        with pytest.raises(Stopped):
            concatenate_ranges(
                reader,
                [reader.timeline.time_range(0, 20), reader.timeline.time_range(22, 48)],
                tmp_path / "cuts.mp4",
                on_progress=report_progress,
            )
    assert reports == [(done, 46) for done in range(1, 33)]
    assert not (tmp_path / "cuts.mp4").exists()


def test_a_damaged_video_gives_the_same_frames_again(tmp_path: Path) -> None:
    """Frames are numbered as the first pass saw them, so it is read in the same way again."""
    run_ffmpeg(*pattern_input(seconds=6), *X264_OPTIONS, tmp_path / "whole.mp4")
    broken = write_damaged(tmp_path / "whole.mp4", tmp_path / "broken.mp4", 0.4, 0.6)
    with VideoReader(broken) as reader:
        whole = [apply_view(View.short_side(120), frame, reader.video) for frame in reader.read_frames()]
        assert reader.decode_failures
        ranges = [reader.timeline.time_range(*span) for span in [(0, 3), (len(whole) - 12, len(whole) - 2)]]
        out = concatenate_ranges(reader, ranges, tmp_path / "cuts.mp4")
    expected = [*range(3), *range(len(whole) - 12, len(whole) - 2)]
    assert [find_nearest(image, whole) for image in read_images(out)] == expected


def test_missing_frames_are_an_error(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    with VideoReader(get_video_path("plain.mp4")) as reader:
        assert sum(1 for _ in reader.read_frames()) == 50
        span, clock = reader.timeline.time_range(10, 20), reader.clock
        longer = TimeRange(span.start, clock.moment_at(25, span.end.pts))
        with pytest.raises(MediaCorrupt, match="10 of the 15 frames"):
            concatenate_ranges(reader, [longer], tmp_path / "cuts.mp4")
    assert not (tmp_path / "cuts.mp4").exists()


@pytest.mark.parametrize("name", ["vfr.mp4", "late.ts", "beeps.mp4", "beeps.mkv"])
def test_images_are_written_with_the_times_of_a_video(
    name: str, get_video_path: GetVideoPath, beeps: GetVideoPath, tmp_path: Path
) -> None:
    """Frames that stand for frames 7 to 30 of a video: shown when those are, with the sound of that range."""
    path = beeps(name) if name in BEEPS else get_video_path(name)
    there = times(path)
    with VideoReader(path) as reader:
        assert sum(1 for _ in reader.read_frames()) == len(there) - 1
        span = reader.timeline.time_range(7, 30)
        drawn = (np.full((65, 97, 3), 8 * k, np.uint8) for k in range(span.frames))
        out = write_video(
            drawn, tmp_path / "video.mp4", reader.clock.fps, times=reader.timeline, first_frame=7, audio=(reader, span)
        )
        with pytest.raises(ValueError, match="more images"):
            write_video(
                [np.zeros((8, 8, 3), np.uint8)] * 2,
                tmp_path / "no.mp4",
                Fraction(25),
                times=reader.timeline,
                first_frame=len(there) - 2,
            )
    written = probe_video(out)
    tick = probe_video(path).clock.time_base if name == "beeps.mkv" else 0
    assert [round(image.mean() / 8) for image in read_images(out)] == list(range(23))
    assert np.abs(np.array(times(out)) - [time - there[7] for time in there[7:31]]).max() <= tick
    if name in BEEPS:
        assert abs(beginnings(out)[0] - (1 - float(there[7]))) < 0.008
    assert bool(written.audio) == (name in BEEPS)
