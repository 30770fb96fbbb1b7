"""Scenes out of probabilities: strict, in float32, in the order of the film, whole."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, strategies as st

from shared.values import Result
from shared.values.modelscope import ModelscopeShot, format_modelscope_scenes
from shared.values.scenes import build_boundaries, build_scenes, group_shots, is_boundary
from tests.support.factories import make_shots

probabilities = st.lists(st.floats(0, 1, width=32), max_size=60)


def float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def rows(count: int) -> list[Result]:
    return make_shots(*((10 * n, 10 * n + 10) for n in range(count)))


@pytest.mark.parametrize(
    ("probability", "threshold", "wanted"),
    [
        (0.8, 0.8, False),
        (float32(0.8), 0.8, False),  # above 0.8 in float64
        (0.80001, 0.8, True),
        (0.5, 0.5, False),
        (1.0, 0.99, True),
    ],
)
def test_a_boundary_is_strictly_above_in_float32(probability: float, threshold: float, wanted: bool) -> None:
    assert is_boundary(probability, threshold) is wanted


@given(probabilities, st.floats(0.01, 0.99))
def test_scenes_share_out_the_shots(scores: list[float], threshold: float) -> None:
    groups = group_shots(scores, threshold)
    assert [shot for first, last in groups for shot in range(first, last + 1)] == list(range(len(scores)))
    for first, last in groups:
        assert not any(float32(score) > float32(threshold) for score in scores[first:last])
    assert all(float32(scores[last]) > float32(threshold) for _, last in groups[:-1])


def test_rows_of_scenes_have_exact_ends_and_the_score_of_what_closes_them() -> None:
    bounds = build_boundaries(rows(4), [0.1, 0.9, 0.3, 0.2])
    assert [(row.kind, row.seq, row.score) for row in bounds] == [
        ("boundary", 0, 0.1), ("boundary", 1, 0.9), ("boundary", 2, 0.3), ("boundary", 3, 0.2)
    ]  # fmt: skip
    made = build_scenes(bounds, 0.8)
    assert [(row.kind, row.seq, row.score, row.data) for row in made] == [
        ("scene", 0, 0.9, {"shots": [0, 1]}),
        ("scene", 1, None, {"shots": [2, 3]}),
    ]
    assert [(row.range.start.frame, row.range.end.frame) for row in made if row.range] == [(0, 20), (20, 40)]


def test_a_boundary_after_the_last_shot_closes_the_last_scene() -> None:
    made = build_scenes(build_boundaries(rows(2), [0.1, 0.9]), 0.8)
    assert [(row.score, row.data["shots"]) for row in made] == [(0.9, [0, 1])]


def test_without_a_boundary_a_film_is_one_scene_and_without_shots_none() -> None:
    assert [row.data["shots"] for row in build_scenes(build_boundaries(rows(3), [0, 0, 0]), 0.5)] == [[0, 2]]
    assert build_scenes((), 0.5) == ()


def test_shots_and_probabilities_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        build_boundaries(rows(3), [0.1, 0.2])


def test_a_row_without_a_score_is_no_boundary() -> None:
    with pytest.raises(ValueError, match="boundary 0"):
        build_scenes([Result("boundary", 0, rows(1)[0].range)], 0.5)


def test_twelve_thousand_shots_stay_in_the_order_of_the_film() -> None:
    count = 12_000
    stamps = [ModelscopeShot.from_range(row.range) for row in rows(count) if row.range]
    made = format_modelscope_scenes(stamps, [0.9 if shot % 100 == 99 else 0.0 for shot in range(count)], 0.8)
    assert made["scene_num"] == len(made["scene_meta_list"]) == 120
    ids = [int(shot) for scene in made["scene_meta_list"] for shot in scene["shot"]]
    assert ids == list(range(count))
    assert made["scene_meta_list"][100]["shot"][0] == "10000"


def test_a_stamp_has_an_inclusive_last_frame() -> None:
    (row,) = make_shots((24, 48))
    assert row.range
    assert ModelscopeShot.from_range(row.range) == ModelscopeShot("24", "47", "00:00:01.001", "00:00:02.002")
