"""What became of the stretches of a film, by hand-worked cases, and by any cut of a film against any other."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

from hypothesis import given, strategies as st

from shared.values import TimeRange
from shared.values.diff import DiffSummary, Pairing, count_changes, count_shifts, pair_ranges
from tests.support import factories

FRAMES = 240
LINE = factories.make_timeline(FRAMES)


def spans(*bounds: int) -> list[TimeRange]:
    return [LINE.time_range(start, end) for start, end in pairwise(bounds)]


def test_each_kind_of_change() -> None:
    before = spans(0, 20, 50, 60, 70, 100, 140, 180)
    after = spans(0, 20, 52, 70, 100, 120, 140, 178)
    told = pair_ranges(before, after)
    assert told == [
        Pairing("kept", (0,), (0,)),
        Pairing("moved", (1,), (1,), 0, 2),
        Pairing("merged", (2, 3), (2,)),
        Pairing("kept", (4,), (3,)),
        Pairing("split", (5,), (4, 5)),
        Pairing("moved", (6,), (6,), 0, -2),
    ]
    assert count_changes(told) == {
        "kept": 2, "moved": 2, "merged": 1, "split": 1, "regrouped": 0, "added": 0, "gone": 0
    }  # fmt: skip


def test_highlights_come_and_go() -> None:
    before = [LINE.time_range(10, 20), LINE.time_range(100, 120)]
    after = [LINE.time_range(40, 60), LINE.time_range(105, 125)]
    assert pair_ranges(before, after) == [
        Pairing("moved", (1,), (1,), 5, 5),
        Pairing("gone", (0,), ()),
        Pairing("added", (), (0,)),
    ]
    assert pair_ranges([], []) == []


def test_two_that_became_two_others_are_regrouped() -> None:
    """Each of the new ones shares at least half of the shorter with the old: 0-60 and 60-80 against 0-20 and 20-80."""
    assert pair_ranges(spans(0, 60, 80), spans(0, 20, 80)) == [Pairing("regrouped", (0, 1), (0, 1))]


cuts = st.lists(st.integers(1, FRAMES - 1), unique=True, max_size=12).map(sorted)


@given(cuts, cuts)
def test_every_stretch_is_in_one_pairing(old: list[int], new: list[int]) -> None:
    before, after = spans(0, *old, FRAMES), spans(0, *new, FRAMES)
    told = pair_ranges(before, after)
    assert sorted(n for pairing in told for n in pairing.before) == list(range(len(before)))
    assert sorted(n for pairing in told for n in pairing.after) == list(range(len(after)))
    assert {pairing.change for pairing in pair_ranges(before, before)} == {"kept"}
    backwards = {"merged": "split", "split": "merged", "added": "gone", "gone": "added"}
    mirrored = sorted((backwards.get(one.change, one.change), one.after, one.before) for one in told)
    assert mirrored == sorted((one.change, one.before, one.after) for one in pair_ranges(after, before))


def test_numbers_of_a_pair() -> None:
    before, after = spans(0, 20, 50, 100), spans(0, 24, 51, 100)
    told = DiffSummary.from_pairings(before, after, pair_ranges(before, after))
    assert told.to_dict() == {
        "before": 3, "after": 3,
        "changes": {"kept": 0, "moved": 3, "merged": 0, "split": 0, "regrouped": 0, "added": 0, "gone": 0},
        "moved_frames": {"median": 4.0, "largest": 4},
    }  # fmt: skip
    assert DiffSummary().to_dict()["moved_frames"] is None


@given(st.lists(st.tuples(cuts, cuts), max_size=5))
def test_numbers_of_many_pairs_are_those_of_all_together(pairs: list[tuple[list[int], list[int]]]) -> None:
    whole, pairings = DiffSummary(), []
    for old, new in pairs:
        before, after = spans(0, *old, FRAMES), spans(0, *new, FRAMES)
        found = pair_ranges(before, after)
        pairings += found
        whole += DiffSummary.from_pairings(before, after, found)
    assert whole.to_dict()["changes"] == count_changes(pairings)
    frames = sorted(count_shifts(pairings).elements())
    assert (whole.median_shift, max(whole.moved_by, default=None)) == (
        (median(frames), frames[-1]) if frames else (None, None)
    )  # fmt: skip
    assert (whole.before, whole.after) == (sum(len(a) + 1 for a, _ in pairs), sum(len(b) + 1 for _, b in pairs))
