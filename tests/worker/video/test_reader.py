"""Every frame, bit for bit and tick for tick as ffmpeg decodes it; in order, by number, and past damage."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import iscc_samples
import numpy as np
import pytest

from tests.worker.video.films import FILMS, X264, damage, digest, ffmpeg, pattern, reference
from worker.video.reader import Frame, Reader

Film = Callable[[str], Path]
CLIPS = {path.suffix: path for path in iscc_samples.videos()}
BROKEN = {".ogg", ".ogv"}
"""FFmpeg's Theora decoder gives up on most packets of these two."""


def read(path: Path, threads: int = 0) -> list[tuple[int, str]]:
    """(pts, MD5) of all frames; the decoder's pictures are not held."""
    with Reader(path, threads) as reader:
        return [(frame.pts, digest(frame.picture)) for frame in reader.frames()]


def check_against_ffmpeg(path: Path) -> None:
    times, pictures = reference(path)
    with Reader(path) as reader:
        seen = [(frame.index, digest(frame.picture)) for frame in reader.frames()]
        seconds = [reader.timeline.at(index).seconds for index in range(len(seen))]
    assert [index for index, _ in seen] == list(range(len(pictures)))
    assert [picture for _, picture in seen] == pictures
    assert reader.decode_failures == 0
    assert reader.video.frames == len(pictures)
    assert seconds == times


@pytest.mark.parametrize("name", FILMS)
def test_every_frame_is_as_ffmpeg_decodes_it(name: str, film: Film) -> None:
    check_against_ffmpeg(film(name))


@pytest.mark.parametrize("ending", sorted(CLIPS.keys() - BROKEN))
def test_every_frame_of_every_container(ending: str) -> None:
    check_against_ffmpeg(CLIPS[ending])


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("known", [False, True], ids=["before", "after"])
def test_frames_by_number(name: str, known: bool, film: Film) -> None:
    """The same frames whether or not the film was read before, in ascending order, each once."""
    whole = read(film(name))
    with Reader(film(name)) as reader:
        if known:
            assert sum(1 for _ in reader.frames()) == len(whole)
        last = len(whole) - 1
        wanted = [last, 0, last // 2, last // 3, last // 2, min(last, last // 2 + 1)]
        found = [(frame.index, frame.pts, digest(frame.picture)) for frame in reader.at(wanted)]
    assert found == [(index, *whole[index]) for index in sorted(set(wanted))]


def test_numbers_outside_are_refused(film: Film) -> None:
    with Reader(film("plain.mp4")) as reader:
        for wrong in ([50], [-1], [0, 50]):
            with pytest.raises(IndexError):
                reader.at(wrong)
        assert list(reader.at([])) == []


def test_fetching_by_number_decodes_only_what_it_must(film: Film) -> None:
    """Key frames stand every 25 frames: frame 30 needs six, and what the decoder holds ahead, not thirty."""
    with Reader(film("plain.mp4"), threads=1) as reader:
        assert [frame.index for frame in reader.at([30])] == [30]
        assert reader.frames_decoded < 15


def test_a_stretch(film: Film) -> None:
    whole = read(film("plain.mp4"))
    with Reader(film("plain.mp4")) as reader:
        for start, stop in ((0, 5), (20, 31), (45, None), (7, 7)):
            seen = [(frame.index, digest(frame.picture)) for frame in reader.frames(start, stop)]
            assert seen == [(index, whole[index][1]) for index in range(50)][start:stop]


def test_one_pass_decodes_each_frame_once(film: Film) -> None:
    with Reader(film("plain.mp4")) as reader:
        assert reader.frames_decoded == 0
        assert sum(1 for _ in reader.frames()) == 50
        assert reader.frames_decoded == 50


def test_the_timeline_grows_and_ends_where_the_film_ends(film: Film) -> None:
    with Reader(film("late.ts")) as reader:
        for frame in reader.frames():
            assert len(reader.timeline) == frame.index + 1
            assert reader.timeline.at(frame.index).pts == frame.pts
        assert reader.timeline.at(50).seconds == reader.video.duration == 2
        assert reader.timeline.at(50).pts == 12 * 90_000


def test_a_pass_left_half_way_is_closed(film: Film) -> None:
    with Reader(film("plain.mp4")) as reader:
        first = next(iter(reader.frames()))
        assert first.index == 0
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Reader(film("plain.mp4")) as reader:
        going = reader.frames()
        next(going)
        reader.__exit__(None, None, None)
        with pytest.raises(StopIteration):
            next(going)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_passes_side_by_side(film: Film) -> None:
    with Reader(film("plain.mp4")) as reader:
        whole = {frame.index: digest(frame.picture) for frame in reader.frames()}
        for one, (other,) in zip(reader.frames(), (list(reader.at([i])) for i in range(0, 50, 10)), strict=False):
            assert whole[one.index] == digest(one.picture)
            assert whole[other.index] == digest(other.picture)


def test_damage_in_the_middle_is_skipped_and_counted(film: Film, tmp_path: Path) -> None:
    ffmpeg(*pattern(seconds=6), *X264, tmp_path / "whole.mp4")
    broken = damage(tmp_path / "whole.mp4", tmp_path / "broken.mp4", 0.4, 0.6)
    with Reader(broken) as reader:
        frames = [(frame.index, frame.pts) for frame in reader.frames()]
        assert reader.decode_failures > 0
        assert reader.video.frames == 150
        assert 75 < len(frames) < 150
        assert [index for index, _ in frames] == list(range(len(frames)))
        assert all(one < two for (_, one), (_, two) in pairwise(frames))
        assert frames[-1][1] == reader.packets.pts[-1]
        assert len(frames) >= len(reference(broken)[1])
        last = len(frames) - 1
        assert [(frame.index, frame.pts) for frame in reader.at([0, last])] == [frames[0], frames[last]]
    assert read(broken)[-40:] == [(pts, whole) for pts, whole in read(tmp_path / "whole.mp4")][-40:]


def test_a_damaged_end_loses_nothing_to_threads(tmp_path: Path) -> None:
    """A decoder with threads drops what it holds when it meets damage while it empties itself."""
    ffmpeg(*pattern(seconds=2), *X264[:-4], "-g", "10", "-bf", "0", tmp_path / "whole.mp4")
    broken = damage(tmp_path / "whole.mp4", tmp_path / "broken.mp4", 0.93, 0.94)
    alone = read(broken, threads=1)
    assert 40 < len(alone) < 50 or read(broken) != read(tmp_path / "whole.mp4")
    for threads in (2, 4, 8):
        assert [pts for pts, _ in read(broken, threads)] == [pts for pts, _ in alone]


@pytest.mark.parametrize("ending", sorted(BROKEN))
def test_a_decoder_that_gives_up_on_most_packets(ending: str) -> None:
    with Reader(CLIPS[ending]) as reader:
        decoded = sum(1 for _ in reader.frames())
    assert decoded == len(reference(CLIPS[ending])[1])
    assert reader.decode_failures >= 1440 - decoded


def test_a_cut_off_film_is_read_to_its_end(film: Film, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    ffmpeg("-i", film("plain.mp4"), "-c", "copy", "-movflags", "+faststart", whole)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    seen, expected = read(cut), read(whole)
    assert 10 < len(seen) < 50
    assert sum(one == two for one, two in zip(seen, expected, strict=False)) >= len(seen) - 3


def test_the_size_changes_on_the_way(tmp_path: Path) -> None:
    ffmpeg(*pattern("160x120", seconds=1), *X264, tmp_path / "a.ts")
    ffmpeg(*pattern("320x200", seconds=1), *X264, "-output_ts_offset", "1", tmp_path / "b.ts")
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with Reader(tmp_path / "both.ts") as reader:
        frames = list(reader.frames())
    assert len(frames) == 50
    assert {(frame.picture.width, frame.picture.height, frame.picture.format.name) for frame in frames} == {
        (160, 120, "yuv420p")
    }
    assert np.asarray(frames[40].picture.to_ndarray(format="gray")).std() > 10


def test_a_spliced_stream_whose_time_jumps_back(tmp_path: Path) -> None:
    ffmpeg(*pattern(seconds=1), *X264, "-output_ts_offset", "100", tmp_path / "a.ts")
    ffmpeg(*pattern(seconds=1), *X264, tmp_path / "b.ts")
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with Reader(tmp_path / "both.ts") as reader:
        frames: list[Frame] = list(reader.frames())
        assert len(frames) == reader.video.frames == 50
        assert [frame.index for frame in reader.at([0, 30, 49])] == [0, 30, 49]
    assert all(one.pts < two.pts for one, two in pairwise(frames))
    assert abs(float(reader.timeline.at(50).seconds) - 2) < 0.1
    assert abs(float(reader.video.duration) - 2) < 0.1


@pytest.mark.parametrize("name", ["plain.mp4", "vp8.webm"])
def test_decord_serves_what_it_is_exact_at(name: str, film: Film) -> None:
    with Reader(film(name)) as reader:
        ours = list(reader.at([0, 7, 24, 25, 49]))
        theirs = list(reader.at([0, 7, 24, 25, 49], decord=True))
        assert (reader.served_by, reader.decord_refused) == ("decord", None)
        assert [(frame.index, frame.pts) for frame in theirs] == [(frame.index, frame.pts) for frame in ours]
        for one, two in zip(ours, theirs, strict=True):
            assert np.array_equal(one.picture.to_ndarray(format="rgb24"), two.picture.to_ndarray())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("edited.mp4", "decord counts 50 frames, the packets 35"),
        ("late.ts", "not exact in mpegts"),
        ("open_gop.mkv", "open GOPs"),
        ("rotated.mp4", "turned"),
        ("av1.mp4", "cannot open"),
        ("deep.mkv", "deep"),
    ],
)
def test_pyav_takes_over_where_decord_is_wrong(name: str, why: str, film: Film) -> None:
    whole = read(film(name))
    with Reader(film(name)) as reader:
        found = [(frame.pts, digest(frame.picture)) for frame in reader.at([3, 20], decord=True)]
        assert reader.served_by == "pyav"
        assert reader.decord_refused is not None
        assert why in reader.decord_refused
    assert found == [whole[3], whole[20]]


def test_a_part_of_a_damaged_film_has_the_numbers_of_its_times(tmp_path: Path) -> None:
    ffmpeg(*pattern(seconds=6), *X264, tmp_path / "whole.mp4")
    broken = damage(tmp_path / "whole.mp4", tmp_path / "broken.mp4", 0.4, 0.6)
    with Reader(broken) as reader:
        times = list(reader.packets.pts)
        by_time = {frame.pts for frame in reader.frames()}
    gone = [frame for frame, pts in enumerate(times) if pts not in by_time]
    for start, stop in [(0, 149), (3, 150), (gone[0], 150), (gone[1], 140)]:
        with Reader(broken) as reader:
            found = [(frame.index, frame.pts) for frame in reader.frames(start, stop)]
        assert found == [(at, times[at]) for at in range(start, stop) if at not in gone]


def test_frames_before_the_first_that_can_be_decoded_are_not_counted(tmp_path: Path) -> None:
    """A recording that begins in the middle of a group of pictures: B-frames stand before its first key frame."""
    ffmpeg(*pattern(seconds=4), "-c:v", "mpeg2video", "-bf", "2", "-g", "12", tmp_path / "whole.ts")
    ffmpeg("-ss", "1.3", "-i", tmp_path / "whole.ts", "-c", "copy", tmp_path / "cut.ts")
    with Reader(tmp_path / "cut.ts") as reader:
        whole = [(frame.index, frame.pts, digest(frame.picture)) for frame in reader.frames()]
    with Reader(tmp_path / "cut.ts") as reader:
        assert len(reader.packets.pts) == reader.video.frames == len(whole)
        assert reader.packets.pts[0] == reader.clock.start_pts
        wanted = [0, 1, 11, 30, len(whole) - 1]
        assert [(f.index, f.pts, digest(f.picture)) for f in reader.at(wanted)] == [whole[at] for at in wanted]
        assert [(f.index, f.pts, digest(f.picture)) for f in reader.frames(7, 20)] == whole[7:20]


def test_pyav_takes_over_where_decord_pads_its_rows(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=24x40:r=25:d=0.4", *X264, tmp_path / "narrow.mp4")
    with Reader(tmp_path / "narrow.mp4") as reader:
        found = [(frame.index, digest(frame.picture)) for frame in reader.at([0, 7], decord=True)]
        assert (reader.served_by, reader.decord_refused) == ("pyav", "decord cannot hand out pictures of this size")
        assert found == [(at, digest(frame.picture)) for at, frame in enumerate(reader.frames()) if at in {0, 7}]
