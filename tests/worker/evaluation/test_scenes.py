"""The metrics against the reference's numbers, against a calculator, and against the bare definitions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from worker.evaluation import (
    ConfusionCounts,
    ScoredVideo,
    average_precision,
    bassl_metrics,
    confusion_counts,
    mean_average_precision,
    mean_iou,
    modelscope_rates,
    pooled_average_precision,
    precision_recall,
    recall_within,
    scrl_metrics,
    scrl_rates,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "scene_metrics.json"
FLOAT64, FLOAT32 = 1e-9, 1e-6


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    case: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return case


@pytest.fixture(scope="module")
def scored_videos(golden: dict[str, Any]) -> dict[str, ScoredVideo]:
    return {
        name: ScoredVideo(np.array(case["gt"]), np.array(case["prob"]), np.array(case["shots"]))
        for name, case in golden["videos"].items()
    }


@pytest.fixture(scope="module")
def predicted(golden: dict[str, Any]) -> dict[str, np.ndarray]:
    """Not everywhere what a threshold of 0.5 would say: the fixture gives predictions of their own."""
    return {name: np.array(case["pred"]) for name, case in golden["videos"].items()}


def make_scored_video(labels: str, scores: list[float]) -> ScoredVideo:
    return ScoredVideo(bits(labels), np.array(scores, dtype=np.float64))


def bits(written: str) -> np.ndarray:
    return np.array([int(letter) for letter in written], dtype=np.int64)


def shots(*lengths: int) -> np.ndarray:
    ends = np.cumsum(lengths)
    return np.stack((ends - np.array(lengths), ends - 1), axis=1)


# The reference --------------------------------------------------------------------------------------------------------


def test_average_precision_is_the_reference(golden: dict[str, Any], scored_videos: dict[str, ScoredVideo]) -> None:
    scores = {name: average_precision(video.labels_N, video.scores_N) for name, video in scored_videos.items()}
    assert scores == pytest.approx(golden["ap_per_video"], rel=0, abs=FLOAT64)
    pooled = pooled_average_precision(list(scored_videos.values()))
    assert pooled == pytest.approx(golden["ap_pooled"], rel=0, abs=FLOAT64)
    mean = sum(golden["ap_per_video"].values()) / 3
    assert mean_average_precision(list(scored_videos.values())) == pytest.approx(mean, rel=0, abs=FLOAT64)


def test_recall_and_overlap_are_the_reference(
    golden: dict[str, Any], scored_videos: dict[str, ScoredVideo], predicted: dict[str, np.ndarray]
) -> None:
    inputs = [(video.labels_N, predicted[name], video.shots_M2) for name, video in scored_videos.items()]
    assert np.mean([precision_recall(*video[:2]).recall for video in inputs]) == pytest.approx(
        golden["recall"], rel=0, abs=FLOAT32
    )
    within = np.mean([recall_within(*video) for video in inputs])
    assert within == pytest.approx(golden["recall_at_3s"], rel=0, abs=FLOAT32)
    assert np.mean([mean_iou(*video) for video in inputs]) == pytest.approx(golden["miou"], rel=0, abs=FLOAT32)


def test_modelscope_is_the_reference(
    golden: dict[str, Any], scored_videos: dict[str, ScoredVideo], predicted: dict[str, np.ndarray]
) -> None:
    labels_N = np.concatenate([video.labels_N for video in scored_videos.values()])
    rates = modelscope_rates(labels_N, np.concatenate([predicted[name] for name in scored_videos]))
    assert rates.precision == pytest.approx(golden["modelscope_precision"], rel=0, abs=FLOAT64)
    assert rates.recall == pytest.approx(golden["modelscope_recall"], rel=0, abs=FLOAT64)
    assert rates.f1 == pytest.approx(golden["modelscope_f1"], rel=0, abs=FLOAT64)


@pytest.mark.parametrize("shot_count", [7, 40, 53, 101])
def test_scrl_is_the_reference(shot_count: int) -> None:
    case = np.load(GOLDEN.with_name(f"scrl_infer_{shot_count}.npz"))
    rates = scrl_rates(case["label"], case["prob"] > 0.5)
    values = (rates.precision, rates.recall, rates.f1, average_precision(case["label"], case["prob"]))
    expected = [float(case[name]) for name in ("precision", "recall", "f1", "ap")]
    assert values == pytest.approx(expected, rel=0, abs=FLOAT64)


# Average precision by hand --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ("1010", [0.9, 0.8, 0.7, 0.1], (1 / 1 + 2 / 3) / 2),
        ("01", [0.2, 0.1], 1 / 2),
        ("10", [0.5, 0.5], 1 / 2),
        ("0110", [0.9, 0.5, 0.5, 0.5], 2 / 4),
        ("101", [0.3, 0.3, 0.1], 1 / 2 * 1 / 2 + 1 / 2 * 2 / 3),
        ("111", [0.1, 0.2, 0.3], 1.0),
        ("000", [0.1, 0.2, 0.3], 0.0),
        ("", [], 0.0),
    ],
)
def test_average_precision_by_hand(labels: str, scores: list[float], expected: float) -> None:
    assert average_precision(bits(labels), np.array(scores)) == pytest.approx(expected, abs=1e-15)


def by_definition(labels: list[int], scores: list[float]) -> float:
    """Every distinct score as a threshold, one after the other."""
    area, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [label for label, score in zip(labels, scores, strict=True) if score >= threshold]
        recall = sum(chosen) / sum(labels)
        area, before = area + (recall - before) * sum(chosen) / len(chosen), recall
    return area


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1)), min_size=1
    )
)
def test_average_precision_is_its_definition(shots_seen: list[tuple[int, float]]) -> None:
    labels, scores = [label for label, _ in shots_seen], [score for _, score in shots_seen]
    expected = by_definition(labels, scores) if any(labels) else 0.0
    assert average_precision(np.array(labels), np.array(scores)) == pytest.approx(expected, abs=1e-12)


@given(st.permutations(range(12)))
def test_the_order_of_shots_does_not_matter(order: list[int]) -> None:
    labels_N, scores_N = bits("010011010010"), np.array([0.5, 0.5, 0.2, 0.9, 0.5, 0.2, 0.1, 0.9, 0.3, 0.3, 0.5, 0.2])
    assert average_precision(labels_N[order], scores_N[order]) == average_precision(labels_N, scores_N)


def test_pooled_and_mean_differ() -> None:
    both = [make_scored_video("10", [0.4, 0.1]), make_scored_video("01", [0.9, 0.5])]
    assert mean_average_precision(both) == pytest.approx((1 + 1 / 2) / 2)
    assert pooled_average_precision(both) == pytest.approx(1 / 2 * 1 / 2 + 1 / 2 * 2 / 3)


# Counting by hand -----------------------------------------------------------------------------------------------------


def test_counts_by_hand() -> None:
    assert confusion_counts(bits("110100"), bits("101100")) == ConfusionCounts(tp=2, fp=1, fn=1, tn=2)


def test_rates_by_hand() -> None:
    labels_N, predicted_N = bits("111100"), bits("110010")
    plain, percent, scrl = (rule(labels_N, predicted_N) for rule in (precision_recall, modelscope_rates, scrl_rates))
    assert (plain.precision, plain.recall) == (2 / 3, 2 / 4)
    assert plain.f1 == pytest.approx(4 / 7, abs=1e-15)
    assert (percent.precision, percent.recall) == (200 / 3.00001, 200 / 4.00001)
    assert percent.f1 == pytest.approx(2 * percent.precision * percent.recall / (percent.precision + percent.recall))
    assert (scrl.precision, scrl.recall) == (2 / 3.00001, 2 / 4.00001)
    assert scrl.f1 == pytest.approx(2 * scrl.precision * scrl.recall / (scrl.precision + scrl.recall + 1e-5))


@pytest.mark.parametrize("rule", [precision_recall, modelscope_rates, scrl_rates])
@pytest.mark.parametrize(
    ("labels", "predicted"), [("000", "000"), ("110", "000"), ("000", "011"), ("110", "001"), ("", "")]
)
def test_rates_without_predictions_are_zero(rule: Any, labels: str, predicted: str) -> None:
    rates = rule(bits(labels), bits(predicted))
    assert (rates.precision, rates.recall, rates.f1) == (0, 0, 0)


# Time by hand ---------------------------------------------------------------------------------------------------------


def test_a_boundary_is_found_within_seconds_and_five_shots() -> None:
    truth = bits("1000000")
    slow, quick = shots(24, 24, 24, 24, 24, 24, 24, 24), shots(6, 6, 6, 6, 6, 6, 6, 6)
    full_recall = 1 / 1.00001
    assert recall_within(truth, bits("0010000"), slow) == full_recall  # 2 s away
    assert recall_within(truth, bits("0001000"), slow) == 0  # exactly 3 s
    assert recall_within(truth, bits("0000010"), quick) == full_recall  # 5 shots, 1.25 s
    assert recall_within(truth, bits("0000001"), quick) == 0  # 6 shots, 1.5 s
    assert recall_within(truth, bits("0001000"), slow, fps=25) == full_recall
    assert recall_within(truth, bits("0000000"), slow) == 0


def test_each_boundary_counts_once() -> None:
    assert recall_within(bits("0101"), bits("1110"), shots(10, 10, 10, 10, 10)) == 2 / 2.00001
    assert recall_within(bits("0000"), bits("1111"), shots(10, 10, 10, 10, 10)) == 0


def test_overlap_by_hand() -> None:
    cut = shots(11, 10, 10, 10, 10)  # ends 10, 20, 30, 40, 50
    # true [0, 20]; predicted [0, 10] and [11, 40]; the tail after the last boundary is no scene
    forth, back = 10 / 20, (10 / 20 + (20 - 11) / (40 - 0)) / 2
    assert mean_iou(bits("0100"), bits("1001"), cut) == pytest.approx((forth + back) / 2, abs=1e-15)
    assert mean_iou(bits("0101"), bits("0101"), cut) == 1
    assert mean_iou(bits("0101"), bits("0000"), cut) == 0
    assert mean_iou(bits("0000"), bits("0101"), cut) == 0
    assert mean_iou(bits("1000"), bits("0000"), cut) == mean_iou(bits("0000"), bits("1000"), cut)


def test_overlap_does_not_depend_on_which_side_is_true() -> None:
    cut = shots(11, 10, 10, 10, 10)
    assert mean_iou(bits("0110"), bits("1001"), cut) == mean_iou(bits("1001"), bits("0110"), cut)


def test_a_scene_of_one_frame_overlaps_nothing() -> None:
    assert mean_iou(bits("10"), bits("10"), shots(1, 5, 5)) == 0


# Test sets ------------------------------------------------------------------------------------------------------------


def test_a_test_set_is_scored_at_once(scored_videos: dict[str, ScoredVideo]) -> None:
    test_set = list(scored_videos.values())
    metrics = bassl_metrics(test_set)
    assert list(metrics) == ["ap", "map", "f1", "recall", "recall_at_3s", "miou"]
    assert metrics["ap"] == pooled_average_precision(test_set)
    assert metrics["map"] == mean_average_precision(test_set)
    labels_N = np.concatenate([video.labels_N for video in test_set])
    scores_N = np.concatenate([video.scores_N for video in test_set])
    assert metrics["f1"] == precision_recall(labels_N, scores_N >= 0.5).f1
    overlaps = [mean_iou(video.labels_N, video.scores_N >= 0.5, video.shots_M2) for video in test_set]
    assert metrics["miou"] == np.mean(overlaps)


def test_a_score_at_the_threshold() -> None:
    edge = ScoredVideo(bits("10"), np.array([0.5, 0.1]), shots(10, 10, 10))
    assert bassl_metrics([edge])["recall"] == 1
    assert scrl_metrics([edge])["recall"] == 0


def test_scrl_averages_over_videos_and_pools_accuracy() -> None:
    video, other_video = make_scored_video("10", [0.9, 0.1]), make_scored_video("0100", [0.6, 0.2, 0.1, 0.1])
    metrics = scrl_metrics([video, other_video])
    assert metrics["recall"] == pytest.approx(1 / 1.00001 / 2)
    assert metrics["ap"] == pytest.approx((1 + 1 / 2) / 2)
    assert metrics["accuracy"] == 4 / 6


@pytest.mark.parametrize(
    ("labels", "scores", "cut"),
    [
        ([0, 1], [0.5], None),
        ([0, -1], [0.5, 0.5], None),
        ([0, 1], [0.5, float("nan")], None),
        ([[0, 1]], [[0.5, 0.5]], None),
        ([0, 1], [0.5, 0.5], shots(1, 1, 1, 1)),
        ([0, 1], [0.5, 0.5], np.array([1, 2])),
    ],
)
def test_what_does_not_fit_together_is_refused(labels: Any, scores: Any, cut: np.ndarray | None) -> None:
    with pytest.raises(ValueError, match=r"[Ll]abel|score"):
        ScoredVideo(np.array(labels), np.array(scores), cut)


def test_times_need_shots() -> None:
    with pytest.raises(ValueError, match="need the shots"):
        bassl_metrics([make_scored_video("10", [0.9, 0.1])])
    with pytest.raises(ValueError, match="no video"):
        scrl_metrics([])
