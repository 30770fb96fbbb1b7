"""Metrics of video summaries: the F-score of TVSum and SumMe, and rank correlations of frame scores.

People disagree about a good summary, so each video comes with summaries of several users. The F-score compares the
selected frames (Gygli et al., ECCV 2014, section 5; Song et al., CVPR 2015, section 5); the rank correlations compare
the scores themselves, which the selection of whole segments hides (Otani et al., CVPR 2019, section 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau, spearmanr

FrameSelection = npt.NDArray[np.integer | np.bool_]
"""0 or 1 for each frame of a video: 1 if it is in the summary."""
Scores = npt.NDArray[np.floating | np.integer]
"""Importance of each frame of a video."""


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Correlation of two rankings of the frames of a video: 1 equal, -1 reversed, 0 unrelated."""

    kendall: float
    spearman: float


def f_scores(summary_N: FrameSelection, users: Sequence[FrameSelection]) -> npt.NDArray[np.float64]:
    """Compute the F-score (0..100) of a summary against that of each user.

    P and R are the common frames over those of the summary and of the user; F = 200 P R / (P + R). The shorter of two
    vectors is padded with frames that are not selected. If either selects nothing, F is 0: the published code divides
    by zero in this case and reports NaN.

    Raises:
        ValueError: no user, or something other than vectors of 0 and 1.
    """
    if not users:
        raise ValueError("There is no user to compare with.")
    for selected_N in (summary_N, *users):
        if selected_N.ndim != 1 or not np.isin(selected_N, (0, 1)).all():
            raise ValueError("A summary is not a vector of 0 and 1.")
    return np.array([_f_score(summary_N, user_N) for user_N in users])


def _f_score(summary_N: FrameSelection, user_M: FrameSelection) -> float:
    """200 P R / (P + R), which equals 200 times the common frames over the sum of both selections."""
    length = min(len(summary_N), len(user_M))
    common = int((summary_N[:length].astype(bool) & user_M[:length].astype(bool)).sum())
    selected = int(summary_N.sum()) + int(user_M.sum())
    return 200.0 * common / selected if common else 0.0


def tvsum_f(summary_N: FrameSelection, users: Sequence[FrameSelection]) -> float:
    """Mean F-score over the users: TVSum."""
    return float(f_scores(summary_N, users).mean())


def summe_f(summary_N: FrameSelection, users: Sequence[FrameSelection]) -> float:
    """F-score against the user who agrees most: SumMe."""
    return float(f_scores(summary_N, users).max())


def rank_correlation(scores_N: Scores, users_UN: Scores) -> RankCorrelation:
    """Compute Kendall's tau (variant b, with ties) and Spearman's rho with each user's scores; mean over users.

    Scores that are all equal rank nothing: their correlation is 0.

    Raises:
        ValueError: no user, or lengths that differ, or a score that is not a number, or fewer than two frames.
    """
    if users_UN.ndim != 2 or not len(users_UN) or users_UN.shape[1:] != scores_N.shape or len(scores_N) < 2:
        raise ValueError(f"Scores {scores_N.shape} do not go with those of the users {users_UN.shape}.")
    if not (np.isfinite(scores_N).all() and np.isfinite(users_UN).all()):
        raise ValueError("A score is not a number.")
    each_U2 = np.array([_correlate_ranks(scores_N, user_N) for user_N in users_UN])
    return RankCorrelation(*each_U2.mean(axis=0).tolist())


def _correlate_ranks(one_N: Scores, other_N: Scores) -> tuple[float, float]:
    if np.ptp(one_N) == 0 or np.ptp(other_N) == 0:
        return 0.0, 0.0
    return float(kendalltau(one_N, other_N).statistic), float(spearmanr(one_N, other_N).statistic)
