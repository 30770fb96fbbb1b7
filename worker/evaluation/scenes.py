"""Metrics of scene boundaries: those of BaSSL (arXiv:2201.05277), SCRL (CVPR 2022) and LGSS (CVPR 2020).

A video of n shots has n - 1 labels: 1 where a scene ends with that shot; the last shot has none.
Papers differ in what they pool: BaSSL counts over the shots of all videos, SCRL takes the mean over videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer | np.bool_]
Scores = npt.NDArray[np.floating]
ShotFrames = npt.NDArray[np.integer]

METRIC_EPSILON = 1e-5
"""In the denominators of ModelScope, of SCRL, and of recall within seconds."""
THRESHOLD = 0.5
MOVIENET_FPS = 24.0
MAX_SHOT_DISTANCE = 5
"""Largest distance in shots of a predicted boundary that counts in `recall_within`."""


@dataclass(frozen=True, slots=True)
class ScoredVideo:
    """One video: labels, scores of the model, and the frames of its shots.

    Args:
        labels_N: 0 or 1 for each shot but the last.
        scores_N: P(a scene ends with this shot) for the same shots.
        shots_M2: first and last frame of each shot, the last one included (MovieNet); M = N or N + 1. Only for
            `recall_within` and `mean_iou`.

    Raises:
        ValueError: lengths do not agree, a label is neither 0 nor 1, or a score is not a number.
    """

    labels_N: Labels
    scores_N: Scores
    shots_M2: ShotFrames | None = None

    def __post_init__(self) -> None:
        _check_labels(self.labels_N, self.scores_N)
        if not np.isfinite(self.scores_N).all():
            raise ValueError("A score is not a number.")
        if self.shots_M2 is not None:
            _check_shots(self.labels_N, self.shots_M2)


@dataclass(frozen=True, slots=True)
class ConfusionCounts:
    """Shots by label and prediction."""

    tp: int
    fp: int
    fn: int
    tn: int


@dataclass(frozen=True, slots=True)
class PrecisionRecall:
    """Precision, recall, and their harmonic mean."""

    precision: float
    recall: float
    f1: float


def _check_labels(labels_N: Labels, predicted_N: npt.NDArray[np.generic]) -> None:
    """ValueError unless both are vectors of one length, and the labels 0 and 1 alone."""
    if labels_N.ndim != 1 or labels_N.shape != predicted_N.shape:
        raise ValueError(f"Labels {labels_N.shape} and predictions {predicted_N.shape} are not vectors of one length.")
    if not np.isin(labels_N, (0, 1)).all():
        raise ValueError("A label is neither 0 nor 1.")


def _check_shots(labels_N: Labels, shots_M2: ShotFrames) -> None:
    if shots_M2.ndim != 2 or shots_M2.shape[1] != 2 or len(shots_M2) - len(labels_N) not in {0, 1}:
        raise ValueError(f"Shots {shots_M2.shape} do not go with {len(labels_N)} labels.")


# Ranking --------------------------------------------------------------------------------------------------------------


def average_precision(labels_N: Labels, scores_N: Scores) -> float:
    """Sum over distinct scores of (recall gained) x (precision at that score); 0 without a positive label.

    The definition of scikit-learn's `average_precision_score`: no interpolation, and shots of equal score enter
    together, so the order among them does not matter.
    """
    _check_labels(labels_N, scores_N)
    positives = int(labels_N.sum())
    if positives == 0:
        return 0.0
    order_N = np.argsort(-scores_N, kind="stable")
    ranked_N = scores_N[order_N]
    ends_K = np.append(np.flatnonzero(ranked_N[1:] != ranked_N[:-1]), len(ranked_N) - 1)
    hits_K = np.cumsum(labels_N[order_N].astype(np.int64))[ends_K]
    gained_K = np.diff(hits_K, prepend=0) / positives
    return float(np.sum(gained_K * (hits_K / (ends_K + 1))))


def pooled_average_precision(videos: Sequence[ScoredVideo]) -> float:
    """Average precision over the shots of all videos at once: the AP of BaSSL."""
    return average_precision(*_pool_videos(videos))


def mean_average_precision(videos: Sequence[ScoredVideo]) -> float:
    """Average precision of each video, then the mean: the AP of SCRL, the mAP of LGSS."""
    return _mean_or_zero([average_precision(video.labels_N, video.scores_N) for video in videos])


# Counting -------------------------------------------------------------------------------------------------------------


def confusion_counts(labels_N: Labels, predicted_N: Labels) -> ConfusionCounts:
    """Count the shots by label and prediction."""
    _check_labels(labels_N, predicted_N)
    label_N, predicted_bool_N = labels_N.astype(bool), predicted_N.astype(bool)
    tp, predicted, positive = int((label_N & predicted_bool_N).sum()), int(predicted_bool_N.sum()), int(label_N.sum())
    return ConfusionCounts(tp, predicted - tp, positive - tp, len(label_N) - predicted - positive + tp)


def precision_recall(labels_N: Labels, predicted_N: Labels) -> PrecisionRecall:
    """Rates without epsilon, 0 where the denominator is 0: scikit-learn and torchmetrics, as BaSSL uses them."""
    counts = confusion_counts(labels_N, predicted_N)
    precision, recall = _safe_ratio(counts.tp, counts.tp + counts.fp), _safe_ratio(counts.tp, counts.tp + counts.fn)
    return PrecisionRecall(precision, recall, _safe_ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn))


def modelscope_rates(labels_N: Labels, predicted_N: Labels) -> PrecisionRecall:
    """Rates in percent, epsilon in precision and recall only: ModelScope's metric of movie scene segmentation.

    F1 is 0 if precision and recall are; the published code divides by zero in this case.
    """
    counts = confusion_counts(labels_N, predicted_N)
    precision, recall = (
        100.0 * counts.tp / (counts.tp + counts.fp + METRIC_EPSILON),
        100.0 * counts.tp / (counts.tp + counts.fn + METRIC_EPSILON),
    )
    return PrecisionRecall(precision, recall, _safe_ratio(2 * precision * recall, precision + recall))


def scrl_rates(labels_N: Labels, predicted_N: Labels) -> PrecisionRecall:
    """Rates with epsilon in all three denominators: SCRL, for one video."""
    counts = confusion_counts(labels_N, predicted_N)
    precision, recall = (
        counts.tp / (counts.tp + counts.fp + METRIC_EPSILON),
        counts.tp / (counts.tp + counts.fn + METRIC_EPSILON),
    )
    return PrecisionRecall(precision, recall, 2 * precision * recall / (precision + recall + METRIC_EPSILON))


# Time -----------------------------------------------------------------------------------------------------------------


def recall_within(
    labels_N: Labels, predicted_N: Labels, shots_M2: ShotFrames, *, seconds: float = 3.0, fps: float = MOVIENET_FPS
) -> float:
    """Share of the boundaries with a predicted one at most 5 shots and less than `seconds` away: Recall@3s.

    Distances are between last frames. Divided by the number of boundaries + 1e-5, as published.
    """
    _check_labels(labels_N, predicted_N)
    _check_shots(labels_N, shots_M2)
    true_K, predicted_P = np.flatnonzero(labels_N), np.flatnonzero(predicted_N)
    ends_M = shots_M2[:, 1]
    near_KP = np.abs(true_K[:, None] - predicted_P) <= MAX_SHOT_DISTANCE
    soon_KP = np.abs(ends_M[true_K][:, None] - ends_M[predicted_P]) / fps < seconds
    return float((near_KP & soon_KP).any(axis=1).sum() / (len(true_K) + METRIC_EPSILON))


def mean_iou(labels_N: Labels, predicted_N: Labels, shots_M2: ShotFrames) -> float:
    """Mean best overlap of true with predicted scenes, averaged with that of predicted with true scenes.

    As published by LGSS and BaSSL: a scene ends at a boundary, so the shots after the last boundary are no scene; the
    length of a scene is its last frame minus its first. 0 if either side has no boundary.
    """
    _check_labels(labels_N, predicted_N)
    _check_shots(labels_N, shots_M2)
    true_S2, predicted_T2 = _scene_spans(labels_N, shots_M2), _scene_spans(predicted_N, shots_M2)
    if not len(true_S2) or not len(predicted_T2):
        return 0.0
    overlap_ST = _pairwise_overlap(true_S2, predicted_T2)
    return float((overlap_ST.max(axis=1).mean() + overlap_ST.max(axis=0).mean()) / 2)


def _scene_spans(boundaries_N: Labels, shots_M2: ShotFrames) -> ShotFrames:
    """Return (S, 2): first frame of the first shot and last frame of the last shot, of each scene with an end."""
    last_S = np.flatnonzero(boundaries_N)
    first_S = np.concatenate(([0], last_S[:-1] + 1)) if len(last_S) else last_S
    return np.stack((shots_M2[first_S, 0], shots_M2[last_S, 1]), axis=1)


def _pairwise_overlap(one_S2: ShotFrames, other_T2: ShotFrames) -> Scores:
    """Return (S, T): common length over the length from the earlier start to the later end; 0 if disjoint."""
    start_ST, end_ST = np.maximum.outer(one_S2[:, 0], other_T2[:, 0]), np.minimum.outer(one_S2[:, 1], other_T2[:, 1])
    first_ST, last_ST = np.minimum.outer(one_S2[:, 0], other_T2[:, 0]), np.maximum.outer(one_S2[:, 1], other_T2[:, 1])
    # A scene of one frame has length 0, so its overlap with itself would be 0 / 0: the maximum with 1 makes it 0.
    overlap_ST: Scores = np.maximum(end_ST - start_ST, 0) / np.maximum(last_ST - first_ST, 1)
    return overlap_ST


# Whole test sets ------------------------------------------------------------------------------------------------------


def bassl_metrics(videos: Sequence[ScoredVideo]) -> dict[str, float]:
    """Compute what BaSSL reports: `ap` and `f1` over all shots at once; `map` and those of LGSS as means over videos.

    Predictions are scores of 0.5 and above: the rule of the torchmetrics that BaSSL's requirements bring.
    `recall_at_3s` and `mean_iou` need the shots of every video.
    """
    labels_N, scores_N = _pool_videos(videos)
    predictions = [video.scores_N >= THRESHOLD for video in videos]
    video_inputs = [
        (video.labels_N, predicted, _require_shots(video)) for video, predicted in zip(videos, predictions, strict=True)
    ]
    return {
        "ap": average_precision(labels_N, scores_N),
        "map": mean_average_precision(videos),
        "f1": precision_recall(labels_N, scores_N >= THRESHOLD).f1,
        "recall": _mean_or_zero([precision_recall(labels, predicted).recall for labels, predicted, _ in video_inputs]),
        "recall_at_3s": _mean_or_zero([recall_within(*inputs) for inputs in video_inputs]),
        "miou": _mean_or_zero([mean_iou(*inputs) for inputs in video_inputs]),
    }


def scrl_metrics(videos: Sequence[ScoredVideo]) -> dict[str, float]:
    """Compute what SCRL reports: means over videos, and `accuracy` over all shots. Predictions are scores above 0.5."""
    video_rates = [scrl_rates(video.labels_N, video.scores_N > THRESHOLD) for video in videos]
    labels_N, scores_N = _pool_videos(videos)
    return {
        "ap": mean_average_precision(videos),
        "f1": _mean_or_zero([rates.f1 for rates in video_rates]),
        "precision": _mean_or_zero([rates.precision for rates in video_rates]),
        "recall": _mean_or_zero([rates.recall for rates in video_rates]),
        "accuracy": _mean_or_zero(list((scores_N > THRESHOLD) == labels_N.astype(bool))),
    }


def _pool_videos(videos: Sequence[ScoredVideo]) -> tuple[Labels, Scores]:
    if not videos:
        raise ValueError("There is no video to score.")
    return np.concatenate([video.labels_N for video in videos]), np.concatenate([video.scores_N for video in videos])


def _require_shots(video: ScoredVideo) -> ShotFrames:
    if video.shots_M2 is None:
        raise ValueError("Metrics in time need the shots.")
    return video.shots_M2


def _safe_ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _mean_or_zero(values: Sequence[float] | Sequence[np.bool_]) -> float:
    return float(np.mean(values)) if values else 0.0
