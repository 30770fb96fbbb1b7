"""Retrieval against a calculator."""

from __future__ import annotations

import numpy as np
import pytest

from worker.evaluation import recall_at


def turned(*degrees: float) -> np.ndarray:
    """Vectors of the plane, of several lengths: cosine looks at the angle alone."""
    angle_N = np.deg2rad(degrees)
    return np.stack((np.cos(angle_N), np.sin(angle_N)), axis=1) * (1 + np.arange(len(degrees))[:, None])


def test_recall_by_hand() -> None:
    """Gallery at 0, 30, 60, 90 degrees of classes 0 1 2 0. Queries:

    at 5, class 0: nearest 0 (class 0): found first. At 35, class 2: 30 (1), 60 (2): second. At 80, class 1: 90 (0),
    60 (2), 30 (1): third. At 50, class 9: never.
    """
    gallery, kinds = turned(0, 30, 60, 90), np.array([0, 1, 2, 0])
    recalls = recall_at(turned(5, 35, 80, 50), np.array([0, 2, 1, 9]), gallery, kinds, ranks=(1, 2, 3, 4, 50))
    assert recalls == {1: 1 / 4, 2: 2 / 4, 3: 3 / 4, 4: 3 / 4, 50: 3 / 4}


def test_the_default_ranks() -> None:
    gallery = turned(*range(60))
    kinds = np.arange(60)
    assert recall_at(gallery[:1], np.array([7]), gallery, kinds) == {1: 0, 5: 0, 10: 1, 20: 1, 50: 1}


def test_equal_similarities_and_zeros() -> None:
    """Two gallery entries at one angle: the earlier one is first. A vector of zeros is less similar than one at 80."""
    gallery = np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    assert recall_at(turned(80), np.array([2]), gallery, np.array([0, 1, 2]), ranks=(1, 2, 3)) == {1: 0, 2: 1, 3: 1}
    assert recall_at(turned(80), np.array([0]), gallery, np.array([0, 1, 2]), ranks=(2, 3)) == {2: 0, 3: 1}


def test_many_queries_are_compared_in_batches() -> None:
    """3,000 queries with a known answer: every third gallery entry is the query's own."""
    draw = np.random.default_rng(5)
    gallery = draw.standard_normal((100, 16)).astype(np.float32)
    queried = draw.integers(0, 100, 3000)
    wanted = np.where(np.arange(3000) % 3 == 0, queried, -1)
    assert recall_at(gallery[queried], wanted, gallery, np.arange(100), ranks=(1,)) == {1: pytest.approx(1 / 3)}


@pytest.mark.parametrize(
    ("queries", "kinds", "gallery"),
    [
        (np.zeros((0, 2)), [], turned(1)),
        (turned(1), [0, 1], turned(1)),
        (turned(1), [0], np.zeros((1, 3))),
        (np.array([[np.nan, 1.0]]), [0], turned(1)),
    ],
)
def test_inconsistent_inputs_are_refused(queries: np.ndarray, kinds: list[int], gallery: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"[Ee]mbedding"):
        recall_at(queries, np.array(kinds), gallery, np.zeros(len(gallery), int))


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        recall_at(turned(1), np.array([0]), turned(1), np.array([0]), ranks=(0,))
