"""Answers made of rectangles, as if a network had given them: which instance follows which thing is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from worker.models.contract import WindowOutput
from worker.models.mttr.tracks.window_prediction import WindowPrediction

INSTANCES, KERNELS, STRIDE = 50, 8, 4
LENGTH, STEP = 24, 18


@dataclass(frozen=True)
class MovingRectangle:
    """A rectangle that moves: corner (x, y) and size in quarter pixels, steps a frame; seen in some frames only."""

    x: float
    y: float
    wide: int
    high: int
    step: float = 0.0
    frames: range = range(10**6)

    def make_logits(self, frame: int, height: int, width: int) -> npt.NDArray[np.float32]:
        logits = np.full((height, width), -4, np.float32)
        if frame in self.frames:
            left, top = round(self.x + self.step * frame), round(self.y)
            logits[top : top + self.high, max(0, left) : max(0, left + self.wide)] = 4
        return logits


FollowedThings = Mapping[int, tuple[MovingRectangle, float]]
"""What instances follow, and with which probability."""


def make_answer(frames: range, followed: FollowedThings, height: int, width: int) -> WindowPrediction:
    """Of one window; instances that follow nothing have empty masks and a probability of nearly nothing."""
    high, wide = -(-height // STRIDE), -(-width // STRIDE)
    features = np.full((len(frames), KERNELS, high, wide), -1, np.float32)
    kernels = np.zeros((len(frames), INSTANCES, KERNELS), np.float32)
    kernels[:, :, KERNELS - 1] = 1
    referred = np.full((len(frames), INSTANCES), 0.01, np.float32)
    for channel, (instance, (thing, probability)) in enumerate(followed.items()):
        features[:, channel] = np.stack([thing.make_logits(frame, high, wide) for frame in frames])
        kernels[:, instance] = np.eye(KERNELS, dtype=np.float32)[channel]
        referred[:, instance] = probability
    return WindowPrediction(referred, kernels, features, height, width)


def list_windows(first: int, stop: int) -> list[range]:
    """Frames of each window, as published: 24 long, 18 apart, the last ones shorter."""
    return [range(start, min(start + LENGTH, stop)) for start in range(first, stop, STEP)]


def make_window_outputs(
    first: int, stop: int, queries: Sequence[Sequence[FollowedThings]], height: int = 96, width: int = 128
) -> list[WindowOutput[tuple[WindowPrediction, ...]]]:
    """What `encode` would give: for each query, what instances follow in each window; the last goes on to the end."""
    return [
        WindowOutput(
            frames.start,
            min(frames.start + STEP, stop),
            tuple(make_answer(frames, query[min(index, len(query) - 1)], height, width) for query in queries),
        )
        for index, frames in enumerate(list_windows(first, stop))
    ]


def pad_tokens(*queries: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries filled up to the longest, and where they are not."""
    longest = max(map(len, queries))
    ids_BL = torch.tensor([[*query, *[1] * (longest - len(query))] for query in queries])
    return ids_BL, ids_BL != 1
