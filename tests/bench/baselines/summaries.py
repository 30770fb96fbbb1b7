"""Baseline: `damo/cv_clip-it_video-summarization_language-guided_en` (modelscope 1.40), step by step.

Every frame goes through CLIP by itself, every sentence too; the whole scorer runs, the part included that no score
depends on; segments and selection are computed by plain loops. It renders no summary video.
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

from tests.bench.baselines.scenes import ImageArrays, read_frames
from worker.models.clip_it.config import ARCHITECTURE, CROP
from worker.models.clip_it.network import FrameScorer
from worker.networks.clip.network import CLIP_MEAN, CLIP_STD, ClipNetwork
from worker.networks.clip.tokens import tokenize_sentences

SAMPLE_EVERY = 15
"""Every so-manyth frame is looked at."""
MAX_CHANGE_POINTS, CHANGE_POINT_WEIGHT = 120, 0.55
"""Change points at most, and what one costs."""
SUMMARY_SHARE = 0.15
"""Part of the video that the summary may have."""

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Span = tuple[int, int]


class SummaryBaseline:
    """The whole pipeline; `run_pipeline` sets the results and the seconds of each step.

    Args:
        clip: both towers, as their authors run them.
        scorer: with its decoder.

    Attributes:
        read_frames: of the video.
        sampled_frames: (T, 224, 224, 3) RGB: the sampled frames as CLIP saw them.
        scores: (T,) how much each belongs into the summary.
        segments: of the video, end exclusive.
        select_segments: numbers of the segments in the summary; none where each is longer than the budget.
        step_seconds: seconds of each step, one entry a run.
    """

    def __init__(self, clip: ClipNetwork, scorer: FrameScorer) -> None:
        self._clip, self._scorer = clip, scorer
        self.frame_count = 0
        self.sampled_frames: ImageArrays = np.empty(0, np.uint8)
        self.scores: Floats = np.empty(0, np.float32)
        self.segments: list[Span] = []
        self.selected_segments: list[int] = []
        self.step_seconds: dict[str, list[float]] = defaultdict(list)

    def run_pipeline(self, path: Path, sentences: Sequence[str]) -> None:
        """From the video to the segments of its summary."""
        times = [perf_counter()]
        self.frame_count, self.sampled_frames = sample_frames(path)
        times.append(perf_counter())
        with torch.no_grad():
            features_TD = normalize_rows(
                np.concatenate([self._clip.encode_images(_normalize_image(frame)) for frame in self.sampled_frames])
            )
            times.append(perf_counter())
            self.scores = self._score_frames(features_TD, sentences)
        times.append(perf_counter())
        points = find_change_points(features_TD)
        firsts = [0, *(point * SAMPLE_EVERY for point in points)]
        self.segments = list(zip(firsts, [*firsts[1:], self.frame_count], strict=True))
        self.selected_segments = select_segments(self.scores, self.segments, self.frame_count)
        times.append(perf_counter())
        names = "decode and prepare", "frames through CLIP", "sentences and scorer", "segments and selection"
        for name, started, ended in zip(names, times, times[1:], strict=False):
            self.step_seconds[name].append(ended - started)

    def _score_frames(self, features_TD: Floats, sentences: Sequence[str]) -> Floats:
        """Each of the seven sentences through CLIP, then everything through the scorer."""
        padded_sentences = [*sentences, *[sentences[-1]] * ARCHITECTURE.sentences][: ARCHITECTURE.sentences]
        ids = [
            torch.from_numpy(tokenize_sentences([sentence])) for sentence in padded_sentences
        ]  # the pipeline computes all 77 positions, padding included
        texts = [self._clip.model.get_text_features(input_ids=ids_1L).pooler_output for ids_1L in ids]
        text_1S = torch.cat(texts).reshape(1, -1).numpy()
        text_11S = torch.from_numpy(normalize_rows(text_1S))[None]
        scores_1T, _ = self._scorer(torch.from_numpy(features_TD)[None], text_11S)
        scores_T: Floats = scores_1T[0].numpy()
        return scores_T


def sample_frames(path: Path) -> tuple[int, ImageArrays]:
    """Number of frames, and every fifteenth as CLIP sees it."""
    images, count = [], 0
    for count, frame_HWC in enumerate(read_frames(path), start=1):
        if (count - 1) % SAMPLE_EVERY == 0:
            images.append(CROP.apply_to(cv2.cvtColor(frame_HWC, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)))
    return count, np.stack(images)


def normalize_rows(rows_ND: Floats) -> Floats:
    """Each row by its length."""
    rows: Floats = rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return rows


def find_change_points(features_TD: Floats) -> list[int]:
    """Kernel temporal segmentation by its recurrence, three loops deep; run once more once the number is known."""
    frames_T = len(features_TD)
    scatter_TT = segment_scatters(features_TD @ features_TD.T)
    max_points = min(frames_T - 1, MAX_CHANGE_POINTS)
    scatter_K, _ = optimal_cuts(scatter_TT, max_points)
    cost = [scatter / frames_T + change_point_penalty(points, frames_T) for points, scatter in enumerate(scatter_K)]
    return optimal_cuts(scatter_TT, int(np.argmin(cost)))[1]


def change_point_penalty(points: int, frames_T: int) -> float:
    """Of so many change points."""
    return CHANGE_POINT_WEIGHT * points / (2 * frames_T) * (math.log(frames_T / points) + 1) if points else 0.0


def segment_scatters(kernel_TT: Floats) -> Doubles:
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


def optimal_cuts(scatter_TT: Doubles, max_points: int) -> tuple[list[float], list[int]]:
    """Return the least scatter for each number of change points up to `max_points`, and the `max_points` positions."""
    frames_T, rows = len(scatter_TT), scatter_TT.tolist()
    least_scatter = [[math.inf] * (frames_T + 1) for _ in range(max_points + 1)]
    where = [[0] * (frames_T + 1) for _ in range(max_points + 1)]
    least_scatter[0][1:] = rows[0]
    for points in range(1, max_points + 1):
        for end in range(points + 1, frames_T + 1):
            for begin in range(points, end):
                cost = rows[begin][end - 1] + least_scatter[points - 1][begin]
                if cost < least_scatter[points][end]:
                    least_scatter[points][end], where[points][end] = cost, begin
    cut_points, end = [], frames_T
    for points in range(max_points, 0, -1):
        end = where[points][end]
        cut_points.append(end)
    return [row[frames_T] for row in least_scatter], cut_points[::-1]


def select_segments(scores_T: Floats, segments: Sequence[Span], frames_N: int) -> list[int]:
    """The segments worth most together within the budget: a 0/1 knapsack, cell by cell."""
    steps_N = np.repeat(scores_T, SAMPLE_EVERY)[:frames_N]
    values = [float(steps_N[first:end].mean()) for first, end in segments]
    capacity = int(frames_N * SUMMARY_SHARE)
    best = [[0.0] * (capacity + 1) for _ in range(len(segments) + 1)]
    for number, (first, end) in enumerate(segments, start=1):
        for weight in range(capacity + 1):
            best[number][weight] = best[number - 1][weight]
            if end - first <= weight:
                value_if_taken = values[number - 1] + best[number - 1][weight - (end - first)]
                best[number][weight] = max(value_if_taken, best[number][weight])
    selected, capacity_left = [], capacity
    for number in range(len(segments), 0, -1):
        if best[number][capacity_left] != best[number - 1][capacity_left]:
            selected.append(number - 1)
            capacity_left -= segments[number - 1][1] - segments[number - 1][0]
    return selected[::-1]


def _normalize_image(image_HWC: ImageArrays) -> Tensor:
    """One frame as CLIP takes it: (1, 3, 224, 224)."""
    x_CHW = torch.from_numpy(image_HWC).permute(2, 0, 1).contiguous().float().div_(255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return x_CHW.sub_(mean).div_(std)[None]
