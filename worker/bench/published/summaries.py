"""The way of the published pipeline `damo/cv_clip-it_video-summarization_language-guided_en` (modelscope 1.40).

Every picture goes through CLIP by itself, every sentence too; the whole scorer runs, the part included that no score
depends on; segments and selection are found by plain loops. It makes no film of the summary.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worker.bench.published.scenes import Pictures, frames
from worker.encoders.clip.network import MEAN, STD, Clip
from worker.encoders.clip.tokens import tokens
from worker.models.clip_it.config import ARCHITECTURE, CROP
from worker.models.clip_it.network import Scorer

STEP = 15
"""Every so-manyth frame is looked at."""
MOST, PRICE = 120, 0.55
"""Change points at most, and what one costs."""
BUDGET = 0.15
"""Part of the film that the summary may have."""

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Span = tuple[int, int]


class PublishedSummary:
    """The whole pipeline; after `run` it knows what it found and how long each step took.

    Args:
        clip: both towers, as their authors run them.
        scorer: with its decoder.

    Attributes:
        frames: of the film.
        pictures: (T, 224, 224, 3) RGB: the sampled frames as CLIP saw them.
        scores: (T,) how much each belongs into the summary.
        segments: of the film, end exclusive.
        chosen: numbers of the segments in the summary; none where each is longer than the budget.
        parts: seconds of each step, one entry a run.
    """

    def __init__(self, clip: Clip, scorer: Scorer) -> None:
        self._clip, self._scorer = clip, scorer
        self.frames = 0
        self.pictures: Pictures = np.empty(0, np.uint8)
        self.scores: Floats = np.empty(0, np.float32)
        self.segments: list[Span] = []
        self.chosen: list[int] = []
        self.parts: dict[str, list[float]] = defaultdict(list)

    def run(self, path: Path, sentences: Sequence[str]) -> None:
        """From the film to the segments of its summary."""
        times = [perf_counter()]
        self.frames, self.pictures = sampled(path)
        times.append(perf_counter())
        with torch.no_grad():
            features_TD = rows_of_one(np.concatenate([self._clip.images(_pixels(each)) for each in self.pictures]))
            times.append(perf_counter())
            self.scores = self._scored(features_TD, sentences)
        times.append(perf_counter())
        points = change_points(features_TD)
        firsts = [0, *(point * STEP for point in points)]
        self.segments = list(zip(firsts, [*firsts[1:], self.frames], strict=True))
        self.chosen = chosen(self.scores, self.segments, self.frames)
        times.append(perf_counter())
        names = "decode and prepare", "pictures through CLIP", "sentences and scorer", "segments and selection"
        for name, began, ended in zip(names, times, times[1:], strict=False):
            self.parts[name].append(ended - began)

    def _scored(self, features_TD: Floats, sentences: Sequence[str]) -> Floats:
        """Each of the seven sentences through CLIP, then everything through the scorer."""
        seven = [*sentences, *[sentences[-1]] * ARCHITECTURE.sentences][: ARCHITECTURE.sentences]
        ids = [torch.from_numpy(tokens([each])) for each in seven]  # all 77 places are computed, filled or not
        texts = [self._clip.model.get_text_features(input_ids=ids_1L).pooler_output for ids_1L in ids]
        text_1S = torch.cat(texts).reshape(1, -1).numpy()
        text_11S = torch.from_numpy(rows_of_one(text_1S))[None]
        scores_1T, _ = self._scorer(torch.from_numpy(features_TD)[None], text_11S)
        scores_T: Floats = scores_1T[0].numpy()
        return scores_T


def sampled(path: Path) -> tuple[int, Pictures]:
    """Number of frames, and every fifteenth as CLIP sees it."""
    seen, count = [], 0
    for count, frame_HWC in enumerate(frames(path), start=1):
        if (count - 1) % STEP == 0:
            seen.append(CROP.see(cv2.cvtColor(frame_HWC, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)))
    return count, np.stack(seen)


def rows_of_one(rows_ND: Floats) -> Floats:
    """Each row by its length."""
    rows: Floats = rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return rows


def change_points(features_TD: Floats) -> list[int]:
    """Kernel temporal segmentation by its recurrence, three loops deep; run once more once the number is known."""
    frames_T = len(features_TD)
    scatter_TT = scatters(features_TD @ features_TD.T)
    most = min(frames_T - 1, MOST)
    least_K, _ = cut(scatter_TT, most)
    cost = [least / frames_T + price(points, frames_T) for points, least in enumerate(least_K)]
    return cut(scatter_TT, int(np.argmin(cost)))[1]


def price(points: int, frames_T: int) -> float:
    """Of so many change points."""
    return PRICE * points / (2 * frames_T) * (math.log(frames_T / points) + 1) if points else 0.0


def scatters(kernel_TT: Floats) -> Doubles:
    """Scatter of frames i to j (inclusive), from sums of the kernel."""
    frames_T = len(kernel_TT)
    own = np.concatenate([[0.0], np.cumsum(np.diag(kernel_TT).astype(np.float64))])
    block = np.zeros((frames_T + 1, frames_T + 1))
    block[1:, 1:] = np.cumsum(np.cumsum(kernel_TT.astype(np.float64), 0), 1)
    scatter_TT = np.zeros((frames_T, frames_T))
    for first in range(frames_T):
        for last in range(first, frames_T):
            within = block[last + 1, last + 1] + block[first, first] - block[last + 1, first] - block[first, last + 1]
            scatter_TT[first, last] = own[last + 1] - own[first] - within / (last - first + 1)
    return scatter_TT


def cut(scatter_TT: Doubles, most: int) -> tuple[list[float], list[int]]:
    """Least scatter for each number of change points up to `most`, and where they are for `most` of them."""
    frames_T, rows = len(scatter_TT), scatter_TT.tolist()
    least = [[math.inf] * (frames_T + 1) for _ in range(most + 1)]
    where = [[0] * (frames_T + 1) for _ in range(most + 1)]
    least[0][1:] = rows[0]
    for points in range(1, most + 1):
        for end in range(points + 1, frames_T + 1):
            for begin in range(points, end):
                cost = rows[begin][end - 1] + least[points - 1][begin]
                if cost < least[points][end]:
                    least[points][end], where[points][end] = cost, begin
    found, end = [], frames_T
    for points in range(most, 0, -1):
        end = where[points][end]
        found.append(end)
    return [row[frames_T] for row in least], found[::-1]


def chosen(scores_T: Floats, segments: Sequence[Span], frames_N: int) -> list[int]:
    """The segments worth most together within the budget: a 0/1 knapsack, cell by cell."""
    steps_N = np.repeat(scores_T, STEP)[:frames_N]
    worth = [float(steps_N[first:end].mean()) for first, end in segments]
    room = int(frames_N * BUDGET)
    best = [[0.0] * (room + 1) for _ in range(len(segments) + 1)]
    for number, (first, end) in enumerate(segments, start=1):
        for weight in range(room + 1):
            best[number][weight] = best[number - 1][weight]
            if end - first <= weight:
                taken = worth[number - 1] + best[number - 1][weight - (end - first)]
                best[number][weight] = max(taken, best[number][weight])
    found, left = [], room
    for number in range(len(segments), 0, -1):
        if best[number][left] != best[number - 1][left]:
            found.append(number - 1)
            left -= segments[number - 1][1] - segments[number - 1][0]
    return found[::-1]


def _pixels(picture_HWC: Pictures) -> Tensor:
    """One picture as CLIP takes it: (1, 3, 224, 224)."""
    x_CHW = torch.from_numpy(picture_HWC).permute(2, 0, 1).contiguous().float().div_(255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return x_CHW.sub_(mean).div_(std)[None]
