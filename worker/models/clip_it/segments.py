"""Kernel temporal segmentation (Potapov et al., ECCV 2014, section 3) as the published pipeline applies it.

A video is cut where the features of its frames change: the scatter inside the segments plus a penalty for each change
point is minimal. Dynamic programming finds the exact minimum; time grows with the square of the number of sampled
frames, memory with the number itself. All in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from worker.models.clip_it.config import SEGMENTATION_RULE, SegmentationRule

Doubles = npt.NDArray[np.float64]

ROWS_PER_BLOCK = 256
"""Rows of the scatter computed by one matrix product: fast, without the memory of all pairs of frames."""


def find_change_points(features_TD: npt.NDArray[np.float32], rule: SegmentationRule = SEGMENTATION_RULE) -> list[int]:
    """Find the sampled frames with which a new segment begins, without the first segment, ascending.

    Args:
        features_TD: of the sampled frames, each of length one.
        rule: how many change points at most, and their penalty.
    """
    frames = len(features_TD)
    if not frames:
        return []
    max_points = min(frames - 1, rule.max_change_points)
    least_KL, best_KL = _minimise_scatter(features_TD, max_points)
    count = int(np.argmin(least_KL[:, frames] / frames + change_point_penalties(frames, max_points, rule.penalty)))
    points, end = [], frames
    for remaining in range(count, 0, -1):
        end = int(best_KL[remaining, end])
        points.append(end)
    return points[::-1]


def change_point_penalties(frames: int, max_points: int, penalty: float) -> Doubles:
    """Penalty of k = 0 to K change points among T frames: penalty * k / 2T * (ln(T / k) + 1), shape (K + 1,)."""
    points_K = np.arange(1, max_points + 1)
    return np.concatenate([[0.0], penalty * points_K / (2 * frames) * (np.log(frames / points_K) + 1)])


def segment_bounds(points: Sequence[int], starts: Sequence[int], frames: int) -> tuple[tuple[int, int], ...]:
    """Convert change points to segments in frames, end exclusive; the last segment ends with the video.

    Args:
        points: sampled frames with which segments begin, but for the first.
        starts: numbers of the sampled frames.
        frames: of the video.
    """
    if not starts:
        return ()
    firsts = [starts[0], *(starts[point] for point in points)]
    return tuple(zip(firsts, [*firsts[1:], frames], strict=True))


def _minimise_scatter(features_TD: npt.NDArray[np.float32], max_points: int) -> tuple[Doubles, npt.NDArray[np.int32]]:
    """Compute the least scatter of the first l frames cut k times, and the last of these cuts: both (K + 1, T + 1).

    I(0, l) = J(0, l), I(k, l) = min over t of I(k - 1, t) + J(t, l), the first t on a tie; J(t, l) is the scatter of
    frames t to l (exclusive). Infinite where l frames cannot be cut so often.
    """
    frames = len(features_TD)
    least_KL = np.full((max_points + 1, frames + 1), np.inf)
    best_KL = np.zeros((max_points + 1, frames + 1), np.int32)
    totals_KT = np.empty((max_points, frames))
    levels = np.arange(max_points)
    for end, scatter_T in enumerate(iter_scatters(features_TD), 1):
        least_KL[0, end] = scatter_T[0]
        cuts = min(max_points, end - 1)
        if cuts:
            totals = np.add(least_KL[:cuts, 1:end], scatter_T[1:], out=totals_KT[:cuts, : end - 1])
            first = totals.argmin(axis=1)
            best_KL[1 : cuts + 1, end] = first + 1
            least_KL[1 : cuts + 1, end] = totals[levels[:cuts], first]
    return least_KL, best_KL


def iter_scatters(features_TD: npt.NDArray[np.float32]) -> Iterator[Doubles]:
    """Yield for each end 1 to T the scatter of frames t to that end (exclusive), for all t before it.

    The scatter of a range is the sum of squared lengths of its features, minus the sum of its block of the kernel
    matrix over its number of frames. With a linear kernel that sum is the squared length of the sum of the features.
    """
    frames, width = features_TD.shape
    sums_LD = np.zeros((frames + 1, width))
    np.cumsum(features_TD, axis=0, dtype=np.float64, out=sums_LD[1:])
    squares_L = np.einsum("ld,ld->l", sums_LD, sums_LD)
    own_L = np.concatenate([[0.0], np.cumsum(np.einsum("td,td->t", features_TD, features_TD, dtype=np.float64))])
    for first in range(1, frames + 1, ROWS_PER_BLOCK):
        last = min(first + ROWS_PER_BLOCK, frames + 1)
        products = sums_LD[first:last] @ sums_LD[:last].T
        for end in range(first, last):
            within = squares_L[end] + squares_L[:end] - 2 * products[end - first, :end]
            yield own_L[end] - own_L[:end] - within / np.arange(end, 0, -1)
