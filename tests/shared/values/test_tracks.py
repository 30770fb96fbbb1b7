"""Colours that can be told apart, lines that are read back, and the published pipeline's keys."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from shared.values.modelscope import format_modelscope_tracks
from shared.values.tracks import QUERY_COLOURS, TrackFrame, parse_track_lines
from tests.support.factories import make_clock

# Machado, Oliveira, Fernandes 2009, at full severity, for linear light.
SIGHTS = {
    "all": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    part = np.array(colour) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def lab(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """CIE L*a*b* under D65."""
    xyz = XYZ @ light.clip(0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_are_told_apart(sight: str) -> None:
    """The published four lie as near to each other as 11 and 15 for some; ours are no nearer to any than 29."""
    seen = [lab(np.asarray(SIGHTS[sight]) @ linear(colour)) for colour in QUERY_COLOURS]
    apart = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in combinations(range(8), 2)}
    assert min(apart.values()) > 11
    assert min(distance for (_, later), distance in apart.items() if later >= 4) > 29


def test_colours_are_the_published_ones_and_readable_on_black() -> None:
    assert QUERY_COLOURS[:4] == ((41, 171, 226), (237, 30, 121), (35, 161, 90), (255, 148, 59))
    assert len(set(QUERY_COLOURS)) == 8
    assert all((XYZ[1] @ linear(colour) + 0.05) / 0.05 > 4.5 for colour in QUERY_COLOURS)


def line(query: int, frame: int, pts: int) -> dict[str, Any]:
    box = (1, 2, 3, 4) if frame else None
    made = TrackFrame(query, frame, 0.5, 7, 12 * frame, box, (6, 8), f"{query}{frame}")
    assert TrackFrame.from_dict(made.to_dict()) == made
    timed = made.to_timed_dict(make_clock().moment_at(frame, pts))
    assert TrackFrame.from_dict(timed) == made
    return timed


def test_the_published_keys() -> None:
    lines = [line(query, frame, 1001 * frame) for frame in range(3, 6) for query in range(2)]
    told = format_modelscope_tracks(lines, 2, Fraction(24000, 1001), "/v1/artifacts/art_1")
    assert list(told) == ["masks", "timestamps", "output_video"]
    assert told["masks"][1] == [{"size": [6, 8], "counts": f"1{frame}"} for frame in range(3, 6)]
    assert told["timestamps"] == ["00:00:00.000", "00:00:00.042", "00:00:00.083"]
    assert told["output_video"] == "/v1/artifacts/art_1"


def test_without_a_frame_rate_the_times_are_exact() -> None:
    lines = [line(0, frame, pts) for frame, pts in ((3, 24_000), (4, 24_000 * 3663))]
    assert format_modelscope_tracks(lines, 1, Fraction(0), None)["timestamps"] == ["00:00:00.000", "01:01:02.000"]
    assert format_modelscope_tracks([], 1, Fraction(25), None) == {
        "masks": [[]],
        "timestamps": [],
        "output_video": None,
    }


def test_lines_are_read_one_at_a_time() -> None:
    assert list(parse_track_lines([b'{"query": 0}\n', '{"query": 1}\n'])) == [{"query": 0}, {"query": 1}]
