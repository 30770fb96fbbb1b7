"""Name-seeded weights: each tensor is a function of its key, its shape and its kind, so no checkpoint has to lie about.

The numbers in the goldens were computed by the published networks with these weights. A row of a state dict's table
holds key, shape, dtype, role, number of elements and kind; rows of kind `keep` are constants of the network.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tests.conftest import REPOSITORY

GOLDEN = REPOSITORY / "tests/golden"
TOLERANCE = 1e-5

TENSOR_KINDS: dict[str, Callable[[np.random.RandomState, tuple[int, ...]], npt.NDArray[np.float64]]] = {
    "running_mean": lambda draw, shape: 0.1 * draw.standard_normal(shape),
    "bias": lambda draw, shape: 0.1 * draw.standard_normal(shape),
    "running_var": lambda draw, shape: 0.5 + draw.random_sample(shape),
    "norm_weight": lambda draw, shape: 1 + 0.1 * draw.standard_normal(shape),
    "normal_fanin": lambda draw, shape: draw.standard_normal(shape) / np.sqrt(float(np.prod(shape[1:]))),
}


@dataclass(frozen=True)
class TensorRow:
    """One tensor of a published state dict."""

    key: str
    shape: tuple[int, ...]
    dtype: str
    kind: str

    def make_tensor(self) -> Tensor:
        draw = np.random.RandomState(zlib.crc32(self.key.encode()))
        return torch.from_numpy(TENSOR_KINDS[self.kind](draw, self.shape).astype(np.float32))


def read_table(name: str) -> list[TensorRow]:
    """The rows of `tests/golden/<name>_state_dict.tsv`."""
    lines = (GOLDEN / f"{name}_state_dict.tsv").read_text().splitlines()
    cells = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [TensorRow(key, _parse_shape(shape), dtype, kind) for key, shape, dtype, _role, _numel, kind in cells]


def _parse_shape(text: str) -> tuple[int, ...]:
    return () if text == "scalar" else tuple(int(length) for length in text.split("x"))


def read_published_shapes(name: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every tensor of the published state dict, constants included."""
    return {row.key: (row.shape, row.dtype) for row in read_table(name)}


def build_own_shapes(build: Callable[[], nn.Module]) -> dict[str, tuple[tuple[int, ...], str]]:
    """The same of a network that is built without numbers."""
    with torch.device("meta"):
        state = build().state_dict()
    return {key: (tuple(value.shape), str(value.dtype).split(".")[1]) for key, value in state.items()}


def load_seeded_weights(network: nn.Module, name: str, only: str = "", drop: str | tuple[str, ...] = "\0") -> None:
    """Load the weights strictly, in evaluation mode.

    Args:
        network: to be filled; its constants stay as it made them.
        name: of the table.
        only: prefix of the keys to be taken, and taken off.
        drop: prefix of keys to be left out, or several.
    """
    constants = {row.key for row in read_table(name) if row.kind == "keep"}
    state = {key: value for key, value in network.state_dict().items() if only + key in constants}
    filled = [row for row in read_table(name) if row.kind != "keep" and row.key.startswith(only)]
    state |= {row.key.removeprefix(only): row.make_tensor() for row in filled if not row.key.startswith(drop)}
    network.load_state_dict(state, strict=True)
    network.eval()


def random_tensor(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers, as the goldens draw them."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def random_image(seed: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """A made-up RGB image (H, W, 3): a wave in each colour, and noise, as the goldens have it."""
    draw = np.random.RandomState(seed)
    waves_C2, phases_C = draw.uniform(0.01, 0.15, (3, 2)), draw.uniform(0, 6.28, 3)
    noise_HWC = draw.randint(-30, 31, (height, width, 3))
    y_HWC, x_HWC, _ = np.ogrid[:height, :width, :3]
    value_HWC = 127 + 90 * np.sin(waves_C2[:, 0] * x_HWC + waves_C2[:, 1] * y_HWC + phases_C) + noise_HWC
    return np.clip(value_HWC, 0, 255).astype(np.uint8)


def relative_error(actual: Tensor | npt.NDArray[np.generic], expected: npt.NDArray[np.generic]) -> float:
    """Largest difference over the largest value wanted; the shapes must agree."""
    actual_array = actual.detach().cpu().numpy() if isinstance(actual, Tensor) else actual
    assert actual_array.shape == expected.shape
    difference = np.abs(actual_array.astype(np.float64) - expected.astype(np.float64)).max()
    return float(difference / np.abs(expected.astype(np.float64)).max())
