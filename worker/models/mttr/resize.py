"""A frame as MTTR wants it: resized as the published pipeline does, exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from worker.models.mttr.config import LONG_SIDE, SHORT_SIDE
from worker.video.transform import ImageArray


@dataclass(frozen=True, slots=True)
class Resize:
    """The short side made so long, but the long side at most 16/9 of that (published: 360 and 640).

    Args:
        short_side: in pixels; smaller frames are enlarged.
    """

    short_side: int = SHORT_SIDE

    @property
    def long_side(self) -> int:
        """The most that the long side may have."""
        return self.short_side * LONG_SIDE // SHORT_SIDE

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that a frame gets, each rounded down as torchvision does."""
        short, long = self.short_side, int(self.short_side * max(height, width) / min(height, width))
        if long > self.long_side:
            short, long = max(1, int(self.long_side * short / long)), self.long_side
        return (short, long) if height <= width else (long, short)

    def resize_frame(self, frame: ImageArray) -> ImageArray:
        """RGB uint8 (H, W, 3) resized: bilinear, antialiased, computed in float32, halves rounded to the even number.

        Pillow, and torch on uint8, round between rows and columns, and a fifth of their pixels are a level apart.
        """
        size = self.output_size(*frame.shape[:2])
        if size == frame.shape[:2]:
            return frame
        x_1CHW = torch.from_numpy(frame).float().permute(2, 0, 1)[None]
        resized_1CHW = functional.interpolate(x_1CHW, size=size, mode="bilinear", antialias=True)
        resized_HWC: ImageArray = resized_1CHW[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
        return resized_HWC
