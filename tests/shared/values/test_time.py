from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from shared.values import Clock, Moment, TimeRange, VideoFacts, format_clock_time, format_timecode
from tests.support import factories

NTSC = Fraction(30000, 1001)
FILM = Fraction(24000, 1001)


@pytest.mark.parametrize(
    ("frame", "fps", "label"),
    [
        (0, NTSC, "00:00:00;00"),
        (1799, NTSC, "00:00:59;29"),
        (1800, NTSC, "00:01:00;02"),  # the labels ;00 and ;01 of minute 1 do not exist
        (17981, NTSC, "00:09:59;29"),
        (17982, NTSC, "00:10:00;00"),  # minute 10 drops nothing
        (107_892, NTSC, "01:00:00;00"),  # an hour of drop-frame is an hour of time, to 3.6 ms
        (3600, Fraction(60000, 1001), "00:01:00;04"),
        (375, FILM, "00:00:15:15"),  # 23.976 is never drop-frame
        (86_400, Fraction(25), "00:57:36:00"),
        (100, Fraction(1000), "00:00:00:100"),
    ],
)
def test_timecode_of_frame(frame: int, fps: Fraction, label: str) -> None:
    assert format_timecode(frame, fps) == label


def _frame_of(label: str, nominal: int, drop: int) -> int:
    hours, minutes, rest = label.split(":", 2)
    seconds, frames = (int(part) for part in rest.replace(";", ":").split(":"))
    total_minutes = int(hours) * 60 + int(minutes)
    return (total_minutes * 60 + seconds) * nominal + frames - drop * (total_minutes - total_minutes // 10)


@given(st.integers(0, 24 * 107_892 - 1))
def test_drop_frame_labels_count_back_to_their_frame(frame: int) -> None:
    assert _frame_of(format_timecode(frame, NTSC), 30, 2) == frame


def test_moment_is_exact_in_all_units() -> None:
    clock = Clock(time_base=Fraction(1, 90_000), fps=NTSC, start_pts=900_000)
    moment = clock.moment_at(375, 900_000 + 1_126_125)
    assert moment.seconds == Fraction(375 * 1001, 30000)
    assert moment.to_dict() == {"frame": 375, "seconds": 12.5125, "pts": 2_026_125, "timecode": "00:00:12;15"}


def test_timecode_follows_the_time_where_the_rate_varies() -> None:
    clock = Clock(time_base=Fraction(1, 1000), fps=Fraction(25), start_pts=0, vfr=True)
    assert clock.moment_at(3, 2000).timecode == "00:00:02:00"


def test_timecode_agrees_with_the_player_after_frames_were_lost() -> None:
    clock = Clock(time_base=Fraction(1, 25), fps=Fraction(25), start_pts=0)
    assert clock.moment_at(100, 125).timecode == "00:00:05:00"  # 25 frames before it could not be decoded


def test_timecode_without_a_rate_is_a_clock_time() -> None:
    clock = Clock(time_base=Fraction(1, 1000), fps=Fraction(0), start_pts=0)
    assert clock.moment_at(3, 3_723_004).timecode == "01:02:03.004"
    assert format_clock_time(Fraction(59_999_6, 10_000)) == "00:01:00.000"


def test_timeline_ends_where_the_last_frame_ends() -> None:
    line = factories.make_timeline(240)
    assert line.moment_at(240).seconds == Fraction(240 * 1001, 24000)
    assert line.time_range(0, 240).frames == 240
    with pytest.raises(IndexError):
        line.moment_at(241)


def test_range_cannot_end_before_it_starts() -> None:
    line = factories.make_timeline(10)
    with pytest.raises(ValueError, match="ends before it starts"):
        TimeRange(line.moment_at(5), line.moment_at(4))


def test_clock_and_video_survive_json() -> None:
    video = factories.make_video(
        clock=Clock(Fraction(1, 90_000), NTSC, 126_000, vfr=True), start_time=Fraction(7, 5), duration=Fraction(1, 4)
    )
    again = VideoFacts.from_dict(video.to_dict())
    assert again == video
    assert isinstance(again.clock.moment_at(0, 126_000), Moment)
