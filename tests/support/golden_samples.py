"""Goldens of large arrays, cut down: a few thousand values as they are, and means that cover all the others.

Of an array `a` with more than `MOST` values the file holds `a` (values at drawn places), `a.means` (the mean of every
`BLOCK` values in a row), `a.scale` (the largest absolute value) and `a.shape`. Smaller arrays are whole. The places
depend on the name and the number of values alone: NumPy promises that `RandomState` draws the same for ever.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tests.support.seeded_weights import relative_error

MOST = 4096
BLOCK = 64

Golden = Mapping[str, npt.NDArray[Any]]


def cut(name: str, array: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
    """Choose what a golden keeps of an array."""
    if array.size <= MOST:
        return {name: array}
    values_N = array.ravel()
    places = np.random.RandomState(zlib.crc32(name.encode())).choice(values_N.size, MOST, replace=False)
    blocks_MB = np.pad(values_N.astype(np.float64), (0, -values_N.size % BLOCK)).reshape(-1, BLOCK)
    return {
        name: values_N[places],
        f"{name}.means": blocks_MB.mean(axis=1).astype(np.float32),
        f"{name}.scale": np.abs(values_N).max(),
        f"{name}.shape": np.array(array.shape),
    }


def names(golden: Golden) -> set[str]:
    """Names of the arrays in a golden, without what is kept beside them."""
    return {key for key in golden if "." not in key}


def off_golden(made: Tensor, golden: Golden, name: str) -> float:
    """Largest difference over the largest value of the whole array; the shapes must agree.

    A mean is never further off than the worst of its values, so what is near everywhere is near here too.
    """
    if f"{name}.scale" not in golden:
        return relative_error(made, golden[name])
    assert list(made.shape) == golden[f"{name}.shape"].tolist()
    mine = cut(name, made.detach().cpu().numpy())
    pairs = [(mine[key].astype(np.float64), golden[key]) for key in (name, f"{name}.means")]
    return float(np.max([np.abs(one - other).max() for one, other in pairs]) / golden[f"{name}.scale"])
