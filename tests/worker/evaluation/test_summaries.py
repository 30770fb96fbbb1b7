"""Summaries against the reference's numbers and against a calculator."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker.evaluation import f_scores, rank_correlation, summe_f, tvsum_f

GOLDEN = Path(__file__).parents[2] / "golden" / "clip_it_postprocess.json"


def bits(written: str) -> np.ndarray:
    return np.array([int(letter) for letter in written], dtype=np.int64)


def chosen(frames: list[int], length: int) -> np.ndarray:
    summary_N = np.zeros(length, np.uint8)
    summary_N[frames] = 1
    return summary_N


@pytest.mark.parametrize("case", range(4))
def test_the_f_score_is_the_reference(case: int) -> None:
    """The last two summaries are empty: there the published code divides by zero, and ours says 0."""
    case_data: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))[case]
    summary_N = chosen(case_data["summary_on"], case_data["summary_len"])
    users = [chosen(frames, case_data["n_frames"]) for frames in case_data["users_on"]]
    empty = not case_data["summary_on"]
    assert empty == (case >= 2) == math.isnan(case_data["f_avg"]) == math.isnan(case_data["f_max"])
    expected = (0, 0) if empty else (case_data["f_avg"], case_data["f_max"])
    assert (tvsum_f(summary_N, users), summe_f(summary_N, users)) == pytest.approx(expected, rel=0, abs=1e-9)


def test_the_f_score_by_hand() -> None:
    """Of 4 chosen frames 2, 1 and 0 are the user's, who chose 4, 2 and 1: P = 1/2, 1/4, 0; R = 1/2, 1/2, 0."""
    summary_N = bits("1111000000")
    users = [bits("0011110000"), bits("1000000001"), bits("0000000001")]
    assert f_scores(summary_N, users).tolist() == pytest.approx([50, 200 * (1 / 8) / (3 / 4), 0], abs=1e-12)
    assert tvsum_f(summary_N, users) == pytest.approx((50 + 100 / 3 + 0) / 3, abs=1e-12)
    assert summe_f(summary_N, users) == 50


def test_the_shorter_summary_is_filled() -> None:
    """P = 2/2, R = 2/4 either way round: what lies beyond the end was not chosen."""
    assert f_scores(bits("0110"), [bits("011011")]) == pytest.approx(200 * 0.5 / 1.5)
    assert f_scores(bits("011011"), [bits("0110")]) == pytest.approx(200 * 0.5 / 1.5)


def test_nothing_chosen_is_zero() -> None:
    assert f_scores(bits("000"), [bits("110"), bits("000")]).tolist() == [0, 0]
    assert f_scores(bits("110"), [bits("000")]).tolist() == [0]


def test_correlation_by_hand() -> None:
    """User 1 swaps the middle two: 5 pairs agree, 1 does not: 4/6; rho 1 - 6 * (1 + 1) / (4 * 15). User 2 reverses."""
    correlation = rank_correlation(np.array([1.0, 2.0, 3.0, 4.0]), np.array([[1, 3, 2, 4], [4, 3, 2, 1]]))
    assert correlation.kendall == pytest.approx((4 / 6 - 1) / 2, abs=1e-12)
    assert correlation.spearman == pytest.approx((0.8 - 1) / 2, abs=1e-12)


def test_correlation_of_ties_by_hand() -> None:
    """Tau b: 2 pairs agree, one is tied on one side, 2 / sqrt(2 * 3). Ranks 1.5 1.5 3, 1 2 3: 1.5 / sqrt(1.5 * 2)."""
    correlation = rank_correlation(np.array([0.2, 0.2, 0.9]), np.array([[1, 2, 3]]))
    assert correlation.kendall == pytest.approx(2 / math.sqrt(6), abs=1e-12)
    assert correlation.spearman == pytest.approx(1.5 / math.sqrt(3), abs=1e-12)


def test_no_order_is_no_correlation() -> None:
    """And says nothing on standard error about it: any warning fails a test."""
    flat, rising = np.ones(5), np.arange(5.0)
    assert rank_correlation(flat, rising[None]).kendall == 0
    assert rank_correlation(rising, np.stack((rising, flat))).spearman == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("scores", "users"),
    [([1.0, 2.0], [[1.0, 2.0, 3.0]]), ([1.0, 2.0], []), ([1.0], [[1.0]]), ([1.0, float("nan")], [[1.0, 2.0]])],
)
def test_scores_that_do_not_go_together_are_refused(scores: list[float], users: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"[Ss]core"):
        rank_correlation(np.array(scores), np.array(users))


def test_summaries_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="no user"):
        tvsum_f(bits("01"), [])
    with pytest.raises(ValueError, match="0 and 1"):
        tvsum_f(bits("02"), [bits("01")])
