"""The prediction of the network for one window of frames and one query, before an instance is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class WindowPrediction:
    """N = 50 instances that the network tracked through the T frames of a window, one of which the query may refer to.

    Masks are not stored: `instance_logits` multiplies an instance's kernel in a frame by the features of that frame.

    Args:
        referred_TN: float32 in 0..1, probability that the query refers to the instance (class 0 of the softmax).
        kernels_TNK: float32, K = 8 numbers a frame for each instance.
        features_TKhw: float32, features of the pixels at a quarter of the size, rounded up: h = ceil(height / 4).
        height, width: of the frames as the network saw them, in pixels, without padding.
    """

    referred_TN: Floats  # noqa: N815 (tensors carry their shape in the name)
    kernels_TNK: Floats  # noqa: N815 (the same)
    features_TKhw: Floats  # noqa: N815 (the same)
    height: int
    width: int

    def instance_logits(self, instance: int) -> Floats:
        """The mask of one instance before the sigmoid: (T, h, w), float32."""
        return compute_mask_logits(self.kernels_TNK[:, instance], self.features_TKhw)


def compute_mask_logits(kernels_TK: Floats, features_TKhw: Floats) -> Floats:
    """Kernels times features, frame by frame (Botach et al., CVPR 2022, section 3.4): (T, h, w), float32."""
    times, channels, height, width = features_TKhw.shape
    logits_T1P = kernels_TK[:, None] @ features_TKhw.reshape(times, channels, height * width)
    return logits_T1P.reshape(times, height, width)
