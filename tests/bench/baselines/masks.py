"""Baseline: the steps of the published pipeline `damo/cv_swin-t_referring_video-object-segmentation` (modelscope 1.40).

The video is decoded whole; for each query each window goes through the whole network, backbone and text encoder
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

from tests.bench.baselines.scenes import ImageArrays, read_frames
from worker.models.mttr.network import MTTR, Prediction, VideoBatch
from worker.runtime.device import IMAGENET_MEAN, IMAGENET_STD

WINDOW_LENGTH, WINDOW_STEP = 24, 18
"""Frames of a window, and from one window to the next; of frames in two windows the later window decides."""
MAX_ASPECT = 640 / 360
"""The long side is at most so much longer than the short side is to be."""

Masks = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float32]


class MaskBaseline:
    """The whole pipeline; `run_pipeline` sets the results and the seconds of each step.

    Args:
        network: as its authors run it.
        tokenize: query -> numbers of its tokens.
        short_side: pixels of a frame's short side as the network sees it.

    Attributes:
        video_frames: (T, H, W, 3) RGB, all of it.
        masks: for each query (T, H, W), at the video's size.
        scores: for each query one a window: how sure the network is of the instance that it chose.
        step_seconds: seconds of each step, one entry a run.
    """

    def __init__(self, network: MTTR, tokenize: Callable[[str], Sequence[int]], short_side: int) -> None:
        self._network, self._tokenize, self._short_side = network, tokenize, short_side
        self.video_frames: ImageArrays = np.empty(0, np.uint8)
        self.masks: list[Masks] = []
        self.scores: list[Scores] = []
        self.step_seconds: dict[str, list[float]] = defaultdict(list)

    def run_pipeline(self, path: Path, queries: Sequence[str]) -> None:
        """From the video to its masks."""
        started = perf_counter()
        self.video_frames = decode_video(path)
        self.step_seconds["decode"].append(perf_counter() - started)
        spent: dict[str, float] = defaultdict(float)
        query_outputs = [self._segment_query(self.video_frames, query, spent) for query in queries]
        self.masks, self.scores = [masks for masks, _ in query_outputs], [scores for _, scores in query_outputs]
        for name, seconds in spent.items():
            self.step_seconds[name].append(seconds)

    @torch.no_grad()
    def _segment_query(self, frames_THWC: ImageArrays, query: str, spent: dict[str, float]) -> tuple[Masks, Scores]:
        ids_1L = torch.tensor([self._tokenize(query)])
        masks_THW = np.zeros(frames_THWC.shape[:3], bool)
        scores = []
        for start in range(0, len(frames_THWC), WINDOW_STEP):
            times = [perf_counter()]
            window_TCHW = prepare_frames(frames_THWC[start : start + WINDOW_LENGTH], self._short_side)
            times.append(perf_counter())
            prediction = self._network(VideoBatch(window_TCHW[:, None]), ids_1L, torch.ones_like(ids_1L))
            masks_TQhw = [prediction.masks(layer) for layer in range(len(prediction.kernels_DNQK))][-1]
            times.append(perf_counter())
            score, instance = select_instance(prediction)
            chosen_THW = upscale_mask(masks_TQhw[:, instance], window_TCHW.shape[-2:], frames_THWC.shape[1:3])
            masks_THW[start : start + WINDOW_LENGTH] = chosen_THW
            scores.append(score)
            times.append(perf_counter())
            for name, started, ended in zip(
                ("prepare", "network", "masks at full size"), times, times[1:], strict=False
            ):
                spent[name] += ended - started
        return masks_THW, np.array(scores, np.float32)


def decode_video(path: Path) -> ImageArrays:
    """Every frame in full size, RGB (T, H, W, 3)."""
    return np.stack([cv2.cvtColor(frame_HWC, cv2.COLOR_BGR2RGB) for frame_HWC in read_frames(path)]).astype(np.uint8)


def network_input_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) as the network sees it: torchvision's resize with a largest long side."""
    short, long = min(height, width), max(height, width)
    max_long = round(short_side * MAX_ASPECT)
    new_short, new_long = short_side, int(short_side * long / short)
    if new_long > max_long:
        new_short, new_long = int(max_long * new_short / new_long), max_long
    return (new_short, new_long) if height <= width else (new_long, new_short)


def resize_frames(frames_THWC: ImageArrays, short_side: int) -> Tensor:
    """Frames in the size that the network sees, with antialias: (T, 3, height, width), whole numbers 0..255."""
    x_TCHW = torch.from_numpy(frames_THWC).permute(0, 3, 1, 2).float()
    high, wide = x_TCHW.shape[-2:]
    size = network_input_size(high, wide, short_side)
    small_TCHW = functional.interpolate(x_TCHW, size, mode="bilinear", align_corners=False, antialias=True)
    return small_TCHW.round_().clamp_(0, 255)


def prepare_frames(frames_THWC: ImageArrays, short_side: int) -> Tensor:
    """Frames as the network takes them: resized, by ImageNet's colours."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return resize_frames(frames_THWC, short_side).div_(255).sub_(mean).div_(std)


def select_instance(prediction: Prediction) -> tuple[float, int]:
    """The instance that the query most likely means in the whole window, and how sure that is."""
    scores_Q = prediction.referred_DNQ2[-1].softmax(dim=-1)[..., 0].mean(dim=0)
    best = int(scores_Q.argmax())
    return float(scores_Q[best]), best


def upscale_mask(logits_Thw: Tensor, network_size: Sequence[int], video_size: Sequence[int]) -> Masks:
    """Logits of a mask -> (T, H, W): to the size that was seen, over a half, to the size of the video."""
    resized_T1HW = functional.interpolate(logits_Thw[:, None], list(network_size), mode="bilinear", align_corners=False)
    over_T1HW = (resized_T1HW.sigmoid() > 0.5).float()
    masks: Masks = functional.interpolate(over_T1HW, list(video_size), mode="nearest")[:, 0].bool().numpy()
    return masks
