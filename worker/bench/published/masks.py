"""The way of the published pipeline `damo/cv_swin-t_referring_video-object-segmentation` (modelscope 1.40).

The film is decoded whole; for each query each window goes through the whole network, backbone and text encoder
included, which yields the masks of all fifty instances after every layer of its decoder. One is brought to full size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from worker.bench.published.scenes import Pictures, frames
from worker.encoders.placed import MEAN, STD
from worker.models.mttr.network import MTTR, Prediction, Videos

LENGTH, STEP = 24, 18
"""Frames of a window, and from one to the next; what two windows share is said by the later one."""
LONG = 640 / 360
"""The long side is at most so much longer than the short side is to be."""

Masks = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float32]


class PublishedMasks:
    """The whole pipeline; after `run` it knows what it found and how long each step took.

    Args:
        network: as its authors run it.
        ids: query -> numbers of its tokens.
        short_side: pixels of a frame's short side as the network sees it.

    Attributes:
        film: (T, H, W, 3) RGB, all of it.
        masks: for each query (T, H, W), at the film's size.
        scores: for each query one a window: how sure the network is of the instance that it chose.
        parts: seconds of each step, one entry a run.
    """

    def __init__(self, network: MTTR, ids: Callable[[str], Sequence[int]], short_side: int) -> None:
        self._network, self._ids, self._short = network, ids, short_side
        self.film: Pictures = np.empty(0, np.uint8)
        self.masks: list[Masks] = []
        self.scores: list[Scores] = []
        self.parts: dict[str, list[float]] = defaultdict(list)

    def run(self, path: Path, queries: Sequence[str]) -> None:
        """From the film to its masks."""
        began = perf_counter()
        self.film = decoded(path)
        self.parts["decode"].append(perf_counter() - began)
        spent: dict[str, float] = defaultdict(float)
        found = [self._query(self.film, query, spent) for query in queries]
        self.masks, self.scores = [masks for masks, _ in found], [scores for _, scores in found]
        for name, seconds in spent.items():
            self.parts[name].append(seconds)

    @torch.no_grad()
    def _query(self, film_THWC: Pictures, query: str, spent: dict[str, float]) -> tuple[Masks, Scores]:
        ids_1L = torch.tensor([self._ids(query)])
        masks_THW = np.zeros(film_THWC.shape[:3], bool)
        scores = []
        for start in range(0, len(film_THWC), STEP):
            times = [perf_counter()]
            window_TCHW = seen(film_THWC[start : start + LENGTH], self._short)
            times.append(perf_counter())
            said = self._network(Videos(window_TCHW[:, None]), ids_1L, torch.ones_like(ids_1L))
            masks_TQhw = [said.masks(layer) for layer in range(len(said.kernels_DNQK))][-1]
            times.append(perf_counter())
            score, instance = referred(said)
            chosen_THW = at_size(masks_TQhw[:, instance], window_TCHW.shape[-2:], film_THWC.shape[1:3])
            masks_THW[start : start + LENGTH] = chosen_THW
            scores.append(score)
            times.append(perf_counter())
            for name, one, other in zip(("prepare", "network", "masks at full size"), times, times[1:], strict=False):
                spent[name] += other - one
        return masks_THW, np.array(scores, np.float32)


def decoded(path: Path) -> Pictures:
    """Every frame in full size, RGB (T, H, W, 3)."""
    return np.stack([cv2.cvtColor(frame_HWC, cv2.COLOR_BGR2RGB) for frame_HWC in frames(path)]).astype(np.uint8)


def size_of(high: int, wide: int, short_side: int) -> tuple[int, int]:
    """(height, width) as the network sees it: torchvision's resize with a largest long side."""
    short, long = min(high, wide), max(high, wide)
    most = round(short_side * LONG)
    new_short, new_long = short_side, int(short_side * long / short)
    if new_long > most:
        new_short, new_long = int(most * new_short / new_long), most
    return (new_short, new_long) if high <= wide else (new_long, new_short)


def resized(pictures_THWC: Pictures, short_side: int) -> Tensor:
    """Frames in the size that the network sees, with antialias: (T, 3, height, width), whole numbers 0..255."""
    x_TCHW = torch.from_numpy(pictures_THWC).permute(0, 3, 1, 2).float()
    high, wide = x_TCHW.shape[-2:]
    size = size_of(high, wide, short_side)
    small_TCHW = functional.interpolate(x_TCHW, size, mode="bilinear", align_corners=False, antialias=True)
    return small_TCHW.round_().clamp_(0, 255)


def seen(pictures_THWC: Pictures, short_side: int) -> Tensor:
    """Frames as the network takes them: resized, by ImageNet's colours."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return resized(pictures_THWC, short_side).div_(255).sub_(mean).div_(std)


def referred(said: Prediction) -> tuple[float, int]:
    """The instance that the query most likely means in the whole window, and how sure that is."""
    scores_Q = said.referred_DNQ2[-1].softmax(dim=-1)[..., 0].mean(dim=0)
    best = int(scores_Q.argmax())
    return float(scores_Q[best]), best


def at_size(logits_Thw: Tensor, size: Sequence[int], shown: Sequence[int]) -> Masks:
    """Logits of a mask -> (T, H, W): to the size that was seen, over a half, to the size of the film."""
    seen_T1HW = functional.interpolate(logits_Thw[:, None], list(size), mode="bilinear", align_corners=False)
    over_T1HW = (seen_T1HW.sigmoid() > 0.5).float()
    masks: Masks = functional.interpolate(over_T1HW, list(shown), mode="nearest")[:, 0].bool().numpy()
    return masks
