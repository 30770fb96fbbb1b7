"""The way of the published BaSSL pipeline, rendered plainly: what `bench bassl` measures the rooms against.

Its steps, as `damo/cv_resnet50-bert_video-scene-segmentation_movienet` takes them (modelscope 1.40, and the detector of
LGSS that it is built on), in code of our own. How its own detector reads keyframes is unknown, so the second pass over
the film is a cheap one: sequential, each keyframe prepared once. Frames count from 0; the end of a shot is exclusive.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shared.errors import MediaCorrupt
from worker.encoders.placed import MEAN, STD
from worker.models.bassl.config import CROP, KEYFRAMES
from worker.models.bassl.network import BaSSL, around, probabilities
from worker.models.shots.config import COLOUR_RULE

BATCH = 16
"""Pictures that go through the encoder together, and windows through the context network. The pipeline itself sends 32
windows, 544 pictures for each keyframe; on a CPU that takes twice as long, which is not held against it here."""
MIN_SHOT = 15
"""Frames; a cut closer to the last one is passed over."""
STEPS = ((3200, 12), (2100, 8), (1700, 6), (1200, 5), (900, 4), (600, 3), (400, 2))
"""From which width on every how-manyth pixel is compared (LGSS)."""

Span = tuple[int, int]
Pictures = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]


class PublishedWay:
    """The whole pipeline; after `run` it knows what it found and how long each step took.

    Args:
        network: as its authors run it: fp32, eager, channels first.

    Attributes:
        spans: start and end of each shot.
        pictures: N x 3 x 224 x 224 x 3, RGB: the keyframes as the network saw them.
        scores: (N,) probability that a scene ends with each shot.
        parts: seconds of each step, one entry a run.
    """

    def __init__(self, network: BaSSL) -> None:
        self._network = network
        self.spans: list[Span] = []
        self.pictures: Pictures = np.empty(0, np.uint8)
        self.scores: Scores = np.empty(0, np.float32)
        self.parts: dict[str, list[float]] = defaultdict(list)

    def run(self, path: Path) -> None:
        """From the film to the probabilities."""
        began = perf_counter()
        self.spans = detect(path)
        detected = perf_counter()
        self.pictures = keyframes(path, self.spans)
        seen = perf_counter()
        self.scores = score(self._network, self.pictures)
        self.parts["decode and find cuts"].append(detected - began)
        self.parts["decode again and prepare keyframes"].append(seen - detected)
        self.parts["network"].append(perf_counter() - seen)


def frames(path: Path) -> Iterator[Pictures]:
    """Every frame in full size, BGR (H, W, 3)."""
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise MediaCorrupt("OpenCV does not open this film.")
        there, frame_HWC = capture.read()
        while there:
            yield np.asarray(frame_HWC, np.uint8)
            there, frame_HWC = capture.read()
    finally:
        capture.release()


def detect(path: Path) -> list[Span]:
    """Shots by the rule of LGSS, from HSV and Luv of every frame."""
    starts, before, number = [0], None, 0
    for number, frame_HWC in enumerate(frames(path), start=1):
        now = _colours(frame_HWC)
        if before is not None:
            d_hsv, d_luv = (float(np.abs(new - old).mean()) for new, old in zip(now, before, strict=True))
            far = len(starts) == 1 or number - 1 - starts[-1] >= MIN_SHOT
            if far and COLOUR_RULE.is_cut(d_hsv, d_luv):
                starts.append(number - 1)
        before = now
    return list(zip(starts, [*starts[1:], number], strict=True))


def keyframes(path: Path, spans: Sequence[Span]) -> Pictures:
    """First, middle and last frame of each shot, as the network sees them: (N, 3, 224, 224, 3) RGB."""
    wanted = [(start, start + (end - 1 - start) // 2, end - 1) for start, end in spans]
    named = {number for numbers in wanted for number in numbers}
    seen = {
        number: CROP.see(cv2.cvtColor(frame_HWC, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False))
        for number, frame_HWC in enumerate(frames(path))
        if number in named
    }
    return np.stack([np.stack([seen[number] for number in numbers]) for numbers in wanted])


@torch.no_grad()
def score(network: BaSSL, pictures_NKHWC: Pictures) -> Scores:
    """Each window of 17 shots by itself, every keyframe in it encoded anew -> (N,)."""
    shots_NKCHW = _prepared(pictures_NKHWC)
    parts = []
    for window_BS in torch.split(around(len(shots_NKCHW), network.window // 2), BATCH):
        pictures_PCHW = shots_NKCHW[window_BS.flatten()].flatten(0, 1)
        encoded_PD = torch.cat([network.features(part) for part in torch.split(pictures_PCHW, BATCH)])
        shots_BSD = encoded_PD.view(*window_BS.shape, KEYFRAMES, -1).mean(dim=2)
        parts.append(probabilities(network(shots_BSD)))
    scores_N: Scores = torch.cat(parts).numpy()
    return scores_N


def _prepared(pictures_NKHWC: Pictures) -> Tensor:
    """Float32, channels first, by the mean and deviation of ImageNet."""
    x_NKCHW = torch.from_numpy(pictures_NKHWC).permute(0, 1, 4, 2, 3).contiguous().float().div_(255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return x_NKCHW.sub_(mean).div_(std)


def _colours(frame_HWC: Pictures) -> list[npt.NDArray[np.int32]]:
    """HSV and Luv of every f-th pixel, in 8-bit levels."""
    step = next((step for width, step in STEPS if frame_HWC.shape[1] >= width), 1)
    small_HWC = np.ascontiguousarray(frame_HWC[::step, ::step])
    return [cv2.cvtColor(small_HWC, code).astype(np.int32) for code in (cv2.COLOR_BGR2HSV, cv2.COLOR_BGR2Luv)]
