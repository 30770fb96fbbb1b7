"""Baseline: the steps of the published pipeline `damo/cv_r2p1d_video_embedding` (modelscope 1.40), one clip at a time.

The video is decoded whole by decord; each frame of each clip is prepared by itself, though clips may share it. Only the
frames of clips are held here, which is not held against the pipeline.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from time import perf_counter

import decord
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from tests.bench.baselines.scenes import ImageArrays
from worker.models.r2plus1d.network import R2Plus1D
from worker.runtime.device import IMAGENET_MEAN, IMAGENET_STD

FRAMES_PER_CLIP, STRIDE, CLIPS = 16, 4, 10
SHORT_SIDE, SIDE = 128, 112

Floats = npt.NDArray[np.float32]


class EmbeddingBaseline:
    """The whole pipeline; `run_pipeline` sets the results and the seconds of each step.

    Args:
        network: as its authors run it.

    Attributes:
        frame_count: of the video.
        clips: (10, 16, 112, 112, 3) RGB, as the network saw them.
        embedding: (2048,), not normalised.
        step_seconds: seconds of each step, one entry a run.
    """

    def __init__(self, network: R2Plus1D) -> None:
        self._network = network
        self.frame_count = 0
        self.clips: ImageArrays = np.empty(0, np.uint8)
        self.embedding: Floats = np.empty(0, np.float32)
        self.step_seconds: dict[str, list[float]] = defaultdict(list)

    def run_pipeline(self, path: Path) -> None:
        """From the video to its embedding."""
        started = perf_counter()
        self.frame_count, video_frames = decode_clip_frames(path)
        decoded_at = perf_counter()
        self.clips = np.stack(
            [
                np.stack([resize_and_crop(video_frames[frame]) for frame in clip])
                for clip in sample_clips(self.frame_count)
            ]
        )
        prepared_at = perf_counter()
        with torch.no_grad():
            features = [self._network(_normalize_clip(clip_THWC)) for clip_THWC in self.clips]
        self.embedding = torch.cat(features).mean(dim=0).numpy()
        self.step_seconds["decode"].append(decoded_at - started)
        self.step_seconds["prepare"].append(prepared_at - decoded_at)
        self.step_seconds["network"].append(perf_counter() - prepared_at)


def decode_clip_frames(path: Path) -> tuple[int, dict[int, ImageArrays]]:
    """Number of frames, all of them decoded; those that a clip names, in full size, RGB (H, W, 3)."""
    reader = decord.VideoReader(str(path), ctx=decord.cpu(0))
    named = {frame for clip in sample_clips(len(reader)) for frame in clip}
    clip_frames = {}
    for number in range(len(reader)):
        image = reader[number].asnumpy()
        if number in named:
            clip_frames[number] = image
    return len(reader), clip_frames


def sample_clips(frames: int) -> list[list[int]]:
    """The frames of each clip: the first frame of the video stands for those that it does not have."""
    spare_frames = frames - ((FRAMES_PER_CLIP - 1) * STRIDE + 1)
    starts = [0] * CLIPS
    if spare_frames > 0:
        edges = np.linspace(0, spare_frames, CLIPS + 1)
        starts = [int((edges[clip] + edges[clip + 1]) / 2) for clip in range(CLIPS)]
    wanted = [[start + STRIDE * place for place in range(FRAMES_PER_CLIP)] for start in starts]
    return [[frame if frame < frames else 0 for frame in clip] for clip in wanted]


def resize_and_crop(image_HWC: ImageArrays) -> ImageArrays:
    """Short side to 128, the middle 112 x 112."""
    high, wide = image_HWC.shape[:2]
    scale = SHORT_SIDE / min(high, wide)
    size = round(wide * scale), round(high * scale)
    image = Image.fromarray(image_HWC).resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    return np.array(image.crop((left, top, left + SIDE, top + SIDE)))


def _normalize_clip(clip_THWC: ImageArrays) -> torch.Tensor:
    """One clip as the network takes it: (1, 3, 16, 112, 112)."""
    x_CTHW = torch.from_numpy(clip_THWC).permute(3, 0, 1, 2).contiguous().float().div_(255)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return x_CTHW.sub_(mean).div_(std)[None]
