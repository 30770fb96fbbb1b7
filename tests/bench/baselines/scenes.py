"""Baseline of `python -m tests.bench bassl`: the steps of the published BaSSL pipeline in plain code.

Its steps, as `damo/cv_resnet50-bert_video-scene-segmentation_movienet` takes them (modelscope 1.40, and the detector of
LGSS that it is built on), in code of our own. How its own detector reads keyframes is unknown, so the second pass over
the video is a cheap one: sequential, each keyframe prepared once. Frames count from 0; the end of a shot is exclusive.
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
from worker.models.bassl.config import CROP, KEYFRAMES_PER_SHOT
from worker.models.bassl.network import BaSSL, boundary_probabilities, neighbour_indices
from worker.models.shots.config import COLOUR_RULE
from worker.runtime.device import IMAGENET_MEAN, IMAGENET_STD

BATCH_SIZE = 16
"""Frames that go through the encoder together, and windows through the context network. The pipeline itself sends 32
windows, 544 frames for each keyframe; on a CPU that takes twice as long, which is not held against it here."""
MIN_SHOT_FRAMES = 15
"""Frames; a cut closer to the last one is passed over."""
SUBSAMPLING_STEPS = ((3200, 12), (2100, 8), (1700, 6), (1200, 5), (900, 4), (600, 3), (400, 2))
"""From which width on every how-manyth pixel is compared (LGSS)."""

Span = tuple[int, int]
ImageArrays = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]


class SceneBaseline:
    """The whole pipeline; `run_pipeline` sets the results and the seconds of each step.

    Args:
        network: as its authors run it: fp32, eager, channels first.

    Attributes:
        spans: start and end of each shot.
        keyframes: N x 3 x 224 x 224 x 3, RGB: the keyframes as the network saw them.
        scores: (N,) probability that a scene ends with each shot.
        step_seconds: seconds of each step, one entry a run.
    """

    def __init__(self, network: BaSSL) -> None:
        self._network = network
        self.spans: list[Span] = []
        self.keyframes: ImageArrays = np.empty(0, np.uint8)
        self.scores: Scores = np.empty(0, np.float32)
        self.step_seconds: dict[str, list[float]] = defaultdict(list)

    def run_pipeline(self, path: Path) -> None:
        """From the video to the probabilities."""
        started = perf_counter()
        self.spans = detect_shots(path)
        detected_at = perf_counter()
        self.keyframes = read_keyframes(path, self.spans)
        prepared_at = perf_counter()
        self.scores = score_shots(self._network, self.keyframes)
        self.step_seconds["decode and find cuts"].append(detected_at - started)
        self.step_seconds["decode again and prepare keyframes"].append(prepared_at - detected_at)
        self.step_seconds["network"].append(perf_counter() - prepared_at)


def read_frames(path: Path) -> Iterator[ImageArrays]:
    """Every frame in full size, BGR (H, W, 3)."""
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise MediaCorrupt("OpenCV does not open this video.")
        has_frame, frame_HWC = capture.read()
        while has_frame:
            yield np.asarray(frame_HWC, np.uint8)
            has_frame, frame_HWC = capture.read()
    finally:
        capture.release()


def detect_shots(path: Path) -> list[Span]:
    """Shots by the rule of LGSS, from HSV and Luv of every frame."""
    starts, previous_colours, number = [0], None, 0
    for number, frame_HWC in enumerate(read_frames(path), start=1):
        colours = _subsampled_colours(frame_HWC)
        if previous_colours is not None:
            d_hsv, d_luv = (float(np.abs(new - old).mean()) for new, old in zip(colours, previous_colours, strict=True))
            past_min_length = len(starts) == 1 or number - 1 - starts[-1] >= MIN_SHOT_FRAMES
            if past_min_length and COLOUR_RULE.is_cut(d_hsv, d_luv):
                starts.append(number - 1)
        previous_colours = colours
    return list(zip(starts, [*starts[1:], number], strict=True))


def read_keyframes(path: Path, spans: Sequence[Span]) -> ImageArrays:
    """First, middle and last frame of each shot, as the network sees them: (N, 3, 224, 224, 3) RGB."""
    wanted = [(start, start + (end - 1 - start) // 2, end - 1) for start, end in spans]
    wanted_numbers = {number for numbers in wanted for number in numbers}
    images = {
        number: CROP.apply_to(cv2.cvtColor(frame_HWC, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False))
        for number, frame_HWC in enumerate(read_frames(path))
        if number in wanted_numbers
    }
    return np.stack([np.stack([images[number] for number in numbers]) for numbers in wanted])


@torch.no_grad()
def score_shots(network: BaSSL, keyframes_NKHWC: ImageArrays) -> Scores:
    """Each window of 17 shots by itself, every keyframe in it encoded anew -> (N,)."""
    shots_NKCHW = _normalize_images(keyframes_NKHWC)
    parts = []
    for window_BS in torch.split(neighbour_indices(len(shots_NKCHW), network.window // 2), BATCH_SIZE):
        images_PCHW = shots_NKCHW[window_BS.flatten()].flatten(0, 1)
        encoded_PD = torch.cat([network.encode_keyframes(part) for part in torch.split(images_PCHW, BATCH_SIZE)])
        shots_BSD = encoded_PD.view(*window_BS.shape, KEYFRAMES_PER_SHOT, -1).mean(dim=2)
        parts.append(boundary_probabilities(network(shots_BSD)))
    scores_N: Scores = torch.cat(parts).numpy()
    return scores_N


def _normalize_images(keyframes_NKHWC: ImageArrays) -> Tensor:
    """Float32, channels first, by the mean and deviation of ImageNet."""
    x_NKCHW = torch.from_numpy(keyframes_NKHWC).permute(0, 1, 4, 2, 3).contiguous().float().div_(255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return x_NKCHW.sub_(mean).div_(std)


def _subsampled_colours(frame_HWC: ImageArrays) -> list[npt.NDArray[np.int32]]:
    """HSV and Luv of every f-th pixel, in 8-bit levels."""
    step = next((step for width, step in SUBSAMPLING_STEPS if frame_HWC.shape[1] >= width), 1)
    small_HWC = np.ascontiguousarray(frame_HWC[::step, ::step])
    return [cv2.cvtColor(small_HWC, code).astype(np.int32) for code in (cv2.COLOR_BGR2HSV, cv2.COLOR_BGR2Luv)]
