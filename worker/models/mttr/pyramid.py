"""The spatial decoder of MTTR: a feature pyramid (Lin et al., CVPR 2017) from tokens at 1/16 to features at 1/4."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from worker.models.mttr.config import Architecture

NORM_GROUPS = 8
"""Of the group normalisations."""


class SpatialDecoder(nn.Module):
    """Convolutions upwards; at each size, what the backbone saw at that size is added."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        quarter, eighth, _ = shape.backbone.widths
        widths = [shape.hidden >> halvings for halvings in range(4)]
        self.lay1, self.gn1 = _make_layer(widths[0], widths[0])
        self.lay2, self.gn2 = _make_layer(widths[0], widths[1])
        self.lay3, self.gn3 = _make_layer(widths[1], widths[2])
        self.lay4, self.gn4 = _make_layer(widths[2], widths[3])
        self.adapter1 = nn.Conv2d(eighth, widths[1], 1)
        self.adapter2 = nn.Conv2d(quarter, widths[2], 1)
        self.out_lay = nn.Conv2d(widths[3], shape.kernel, 3, padding=1)

    def adapt_features(self, eighth_NCHW: Tensor, quarter_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """What is added at 1/8 and at 1/4 of the size: the same for every query."""
        return self.adapter1(eighth_NCHW), self.adapter2(quarter_NCHW)

    def forward(self, x_NCHW: Tensor, eighth_NCHW: Tensor, quarter_NCHW: Tensor) -> Tensor:
        """Tokens of images at 1/16, and what `adapt_features` gives for them -> (N, K, h, w) at 1/4 of the size."""
        x = functional.relu(self.gn1(self.lay1(x_NCHW)))
        x = functional.relu(self.gn2(self.lay2(x)))
        x = functional.relu(self.gn3(self.lay3(_upsample_add(x, eighth_NCHW))))
        x = functional.relu(self.gn4(self.lay4(_upsample_add(x, quarter_NCHW))))
        features_NKhw: Tensor = self.out_lay(x)
        return features_NKhw


def _make_layer(channels_in: int, channels_out: int) -> tuple[nn.Conv2d, nn.GroupNorm]:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.GroupNorm(NORM_GROUPS, channels_out)


def _upsample_add(small_NCHW: Tensor, large_NCHW: Tensor) -> Tensor:
    return large_NCHW + functional.interpolate(small_NCHW, size=large_NCHW.shape[-2:], mode="nearest")
