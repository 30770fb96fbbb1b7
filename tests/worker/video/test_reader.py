"""Every frame, bit for bit and tick for tick as ffmpeg decodes it; in order, by number, and past damage."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import iscc_samples
import numpy as np
import pytest

from tests.support.sample_videos import (
    VIDEO_MAKERS,
    X264_OPTIONS,
    digest_frame,
    pattern_input,
    read_reference_frames,
    run_ffmpeg,
    write_damaged,
)
from worker.video.reader import Frame, VideoReader

GetVideoPath = Callable[[str], Path]
CLIPS = {path.suffix: path for path in iscc_samples.videos()}
BROKEN = {".ogg", ".ogv"}
"""FFmpeg's Theora decoder gives up on most packets of these two."""


def read(path: Path, threads: int = 0) -> list[tuple[int, str]]:
    """(pts, MD5) of all frames; the decoder's frames are not kept."""
    with VideoReader(path, threads) as reader:
        return [(frame.pts, digest_frame(frame.av_frame)) for frame in reader.read_frames()]


def check_against_ffmpeg(path: Path) -> None:
    times, digests = read_reference_frames(path)
    with VideoReader(path) as reader:
        decoded = [(frame.index, digest_frame(frame.av_frame)) for frame in reader.read_frames()]
        seconds = [reader.timeline.moment_at(index).seconds for index in range(len(decoded))]
    assert [index for index, _ in decoded] == list(range(len(digests)))
    assert [digest for _, digest in decoded] == digests
    assert reader.decode_failures == 0
    assert reader.video.frames == len(digests)
    assert seconds == times


@pytest.mark.parametrize("name", VIDEO_MAKERS)
def test_every_frame_is_as_ffmpeg_decodes_it(name: str, get_video_path: GetVideoPath) -> None:
    check_against_ffmpeg(get_video_path(name))


@pytest.mark.parametrize("ending", sorted(CLIPS.keys() - BROKEN))
def test_every_frame_of_every_container(ending: str) -> None:
    check_against_ffmpeg(CLIPS[ending])


@pytest.mark.parametrize("name", VIDEO_MAKERS)
@pytest.mark.parametrize("known", [False, True], ids=["before", "after"])
def test_frames_by_number(name: str, known: bool, get_video_path: GetVideoPath) -> None:
    """The same frames whether or not the video was read before, in ascending order, each once."""
    all_frames = read(get_video_path(name))
    with VideoReader(get_video_path(name)) as reader:
        if known:
            assert sum(1 for _ in reader.read_frames()) == len(all_frames)
        last = len(all_frames) - 1
        wanted = [last, 0, last // 2, last // 3, last // 2, min(last, last // 2 + 1)]
        frames = [(frame.index, frame.pts, digest_frame(frame.av_frame)) for frame in reader.read_frames_at(wanted)]
    assert frames == [(index, *all_frames[index]) for index in sorted(set(wanted))]


def test_numbers_outside_are_refused(get_video_path: GetVideoPath) -> None:
    with VideoReader(get_video_path("plain.mp4")) as reader:
        for wrong in ([50], [-1], [0, 50]):
            with pytest.raises(IndexError):
                reader.read_frames_at(wrong)
        assert list(reader.read_frames_at([])) == []


def test_fetching_by_number_decodes_only_what_it_must(get_video_path: GetVideoPath) -> None:
    """Key frames stand every 25 frames: frame 30 needs six, and what the decoder holds ahead, not thirty."""
    with VideoReader(get_video_path("plain.mp4"), threads=1) as reader:
        assert [frame.index for frame in reader.read_frames_at([30])] == [30]
        assert reader.frames_decoded < 15


def test_a_range_of_frames(get_video_path: GetVideoPath) -> None:
    all_frames = read(get_video_path("plain.mp4"))
    with VideoReader(get_video_path("plain.mp4")) as reader:
        for start, stop in ((0, 5), (20, 31), (45, None), (7, 7)):
            decoded = [(frame.index, digest_frame(frame.av_frame)) for frame in reader.read_frames(start, stop)]
            assert decoded == [(index, all_frames[index][1]) for index in range(50)][start:stop]


def test_one_pass_decodes_each_frame_once(get_video_path: GetVideoPath) -> None:
    with VideoReader(get_video_path("plain.mp4")) as reader:
        assert reader.frames_decoded == 0
        assert sum(1 for _ in reader.read_frames()) == 50
        assert reader.frames_decoded == 50


def test_the_timeline_grows_and_ends_where_the_video_ends(get_video_path: GetVideoPath) -> None:
    with VideoReader(get_video_path("late.ts")) as reader:
        for frame in reader.read_frames():
            assert len(reader.timeline) == frame.index + 1
            assert reader.timeline.moment_at(frame.index).pts == frame.pts
        assert reader.timeline.moment_at(50).seconds == reader.video.duration == 2
        assert reader.timeline.moment_at(50).pts == 12 * 90_000


def test_an_abandoned_pass_is_closed(get_video_path: GetVideoPath) -> None:
    with VideoReader(get_video_path("plain.mp4")) as reader:
        first = next(iter(reader.read_frames()))
        assert first.index == 0
    before = len(list(Path("/proc/self/fd").iterdir()))
    with VideoReader(get_video_path("plain.mp4")) as reader:
        going = reader.read_frames()
        next(going)
        reader.__exit__(None, None, None)
        with pytest.raises(StopIteration):
            next(going)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_passes_side_by_side(get_video_path: GetVideoPath) -> None:
    with VideoReader(get_video_path("plain.mp4")) as reader:
        all_frames = {frame.index: digest_frame(frame.av_frame) for frame in reader.read_frames()}
        for one, (other,) in zip(
            reader.read_frames(), (list(reader.read_frames_at([i])) for i in range(0, 50, 10)), strict=False
        ):
            assert all_frames[one.index] == digest_frame(one.av_frame)
            assert all_frames[other.index] == digest_frame(other.av_frame)


def test_damage_in_the_middle_is_skipped_and_counted(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    run_ffmpeg(*pattern_input(seconds=6), *X264_OPTIONS, tmp_path / "whole.mp4")
    broken = write_damaged(tmp_path / "whole.mp4", tmp_path / "broken.mp4", 0.4, 0.6)
    with VideoReader(broken) as reader:
        frames = [(frame.index, frame.pts) for frame in reader.read_frames()]
        assert reader.decode_failures > 0
        assert reader.video.frames == 150
        assert 75 < len(frames) < 150
        assert [index for index, _ in frames] == list(range(len(frames)))
        assert all(one < two for (_, one), (_, two) in pairwise(frames))
        assert frames[-1][1] == reader.packets.pts[-1]
        assert len(frames) >= len(read_reference_frames(broken)[1])
        last = len(frames) - 1
        assert [(frame.index, frame.pts) for frame in reader.read_frames_at([0, last])] == [frames[0], frames[last]]
    assert read(broken)[-40:] == [(pts, digest) for pts, digest in read(tmp_path / "whole.mp4")][-40:]


def test_a_damaged_end_loses_nothing_to_threads(tmp_path: Path) -> None:
    """A decoder with threads drops what it holds when it meets damage while it is flushed."""
    run_ffmpeg(*pattern_input(seconds=2), *X264_OPTIONS[:-4], "-g", "10", "-bf", "0", tmp_path / "whole.mp4")
    broken = write_damaged(tmp_path / "whole.mp4", tmp_path / "broken.mp4", 0.93, 0.94)
    alone, whole = read(broken, threads=1), read(tmp_path / "whole.mp4")
    assert 40 < len(alone) < len(whole) == 50
    assert alone[:40] == whole[:40]
    for threads in (2, 4, 8):
        assert [pts for pts, _ in read(broken, threads)] == [pts for pts, _ in alone]


@pytest.mark.parametrize("ending", sorted(BROKEN))
def test_a_decoder_that_gives_up_on_most_packets(ending: str) -> None:
    with VideoReader(CLIPS[ending]) as reader:
        decoded = sum(1 for _ in reader.read_frames())
    assert decoded == len(read_reference_frames(CLIPS[ending])[1])
    assert reader.decode_failures >= 1440 - decoded


def test_a_truncated_video_is_read_to_its_end(get_video_path: GetVideoPath, tmp_path: Path) -> None:
    full, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    run_ffmpeg("-i", get_video_path("plain.mp4"), "-c", "copy", "-movflags", "+faststart", full)
    cut.write_bytes(full.read_bytes()[: full.stat().st_size * 6 // 10])
    decoded, expected = read(cut), read(full)
    assert 10 < len(decoded) < 50
    assert sum(one == two for one, two in zip(decoded, expected, strict=False)) >= len(decoded) - 3


def test_a_stream_that_changes_its_size_is_scaled(tmp_path: Path) -> None:
    run_ffmpeg(*pattern_input("160x120", seconds=1), *X264_OPTIONS, tmp_path / "a.ts")
    run_ffmpeg(*pattern_input("320x200", seconds=1), *X264_OPTIONS, "-output_ts_offset", "1", tmp_path / "b.ts")
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with VideoReader(tmp_path / "both.ts") as reader:
        frames = list(reader.read_frames())
    assert len(frames) == 50
    assert {(frame.av_frame.width, frame.av_frame.height, frame.av_frame.format.name) for frame in frames} == {
        (160, 120, "yuv420p")
    }
    assert np.asarray(frames[40].av_frame.to_ndarray(format="gray")).std() > 10


def test_a_spliced_stream_whose_time_jumps_back(tmp_path: Path) -> None:
    run_ffmpeg(*pattern_input(seconds=1), *X264_OPTIONS, "-output_ts_offset", "100", tmp_path / "a.ts")
    run_ffmpeg(*pattern_input(seconds=1), *X264_OPTIONS, tmp_path / "b.ts")
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with VideoReader(tmp_path / "both.ts") as reader:
        frames: list[Frame] = list(reader.read_frames())
        assert len(frames) == reader.video.frames == 50
        assert [frame.index for frame in reader.read_frames_at([0, 30, 49])] == [0, 30, 49]
    assert all(one.pts < two.pts for one, two in pairwise(frames))
    assert abs(float(reader.timeline.moment_at(50).seconds) - 2) < 0.1
    assert abs(float(reader.video.duration) - 2) < 0.1


@pytest.mark.parametrize("name", ["plain.mp4", "vp8.webm"])
def test_decord_is_used_where_it_is_exact(name: str, get_video_path: GetVideoPath) -> None:
    with VideoReader(get_video_path(name)) as reader:
        ours = list(reader.read_frames_at([0, 7, 24, 25, 49]))
        theirs = list(reader.read_frames_at([0, 7, 24, 25, 49], allow_decord=True))
        assert (reader.served_by, reader.decord_refusal) == ("decord", None)
        assert [(frame.index, frame.pts) for frame in theirs] == [(frame.index, frame.pts) for frame in ours]
        for one, two in zip(ours, theirs, strict=True):
            assert np.array_equal(one.av_frame.to_ndarray(format="rgb24"), two.av_frame.to_ndarray())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("edited.mp4", "decord counts 50 frames, the packets 35"),
        ("late.ts", "not exact in mpegts"),
        ("open_gop.mkv", "open GOPs"),
        ("rotated.mp4", "rotated"),
        ("av1.mp4", "cannot open"),
        ("deep.mkv", "deep"),
    ],
)
def test_pyav_takes_over_where_decord_is_wrong(name: str, reason: str, get_video_path: GetVideoPath) -> None:
    all_frames = read(get_video_path(name))
    with VideoReader(get_video_path(name)) as reader:
        frames = [
            (frame.pts, digest_frame(frame.av_frame)) for frame in reader.read_frames_at([3, 20], allow_decord=True)
        ]
        assert reader.served_by == "pyav"
        assert reader.decord_refusal is not None
        assert reason in reader.decord_refusal
    assert frames == [all_frames[3], all_frames[20]]


def test_frames_of_a_damaged_video_are_numbered_by_time(tmp_path: Path) -> None:
    run_ffmpeg(*pattern_input(seconds=6), *X264_OPTIONS, tmp_path / "whole.mp4")
    broken = write_damaged(tmp_path / "whole.mp4", tmp_path / "broken.mp4", 0.4, 0.6)
    with VideoReader(broken) as reader:
        times = list(reader.packets.pts)
        by_time = {frame.pts for frame in reader.read_frames()}
    gone = [frame for frame, pts in enumerate(times) if pts not in by_time]
    for start, stop in [(0, 149), (3, 150), (gone[0], 150), (gone[1], 140)]:
        with VideoReader(broken) as reader:
            frames = [(frame.index, frame.pts) for frame in reader.read_frames(start, stop)]
        assert frames == [(at, times[at]) for at in range(start, stop) if at not in gone]


def test_frames_before_the_first_that_can_be_decoded_are_not_counted(tmp_path: Path) -> None:
    """A recording that begins in the middle of a group of frames: B-frames stand before its first key frame."""
    run_ffmpeg(*pattern_input(seconds=4), "-c:v", "mpeg2video", "-bf", "2", "-g", "12", tmp_path / "whole.ts")
    run_ffmpeg("-ss", "1.3", "-i", tmp_path / "whole.ts", "-c", "copy", tmp_path / "cut.ts")
    with VideoReader(tmp_path / "cut.ts") as reader:
        all_frames = [(frame.index, frame.pts, digest_frame(frame.av_frame)) for frame in reader.read_frames()]
    with VideoReader(tmp_path / "cut.ts") as reader:
        assert len(reader.packets.pts) == reader.video.frames == len(all_frames)
        assert reader.packets.pts[0] == reader.clock.start_pts
        wanted = [0, 1, 11, 30, len(all_frames) - 1]
        assert [(f.index, f.pts, digest_frame(f.av_frame)) for f in reader.read_frames_at(wanted)] == [
            all_frames[at] for at in wanted
        ]
        assert [(f.index, f.pts, digest_frame(f.av_frame)) for f in reader.read_frames(7, 20)] == all_frames[7:20]


def test_pyav_takes_over_where_decord_pads_its_rows(tmp_path: Path) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=24x40:r=25:d=0.4", *X264_OPTIONS, tmp_path / "narrow.mp4")
    with VideoReader(tmp_path / "narrow.mp4") as reader:
        frames = [
            (frame.index, digest_frame(frame.av_frame)) for frame in reader.read_frames_at([0, 7], allow_decord=True)
        ]
        assert (reader.served_by, reader.decord_refusal) == ("pyav", "decord cannot return frames of this size")
        assert frames == [
            (at, digest_frame(frame.av_frame)) for at, frame in enumerate(reader.read_frames()) if at in {0, 7}
        ]
