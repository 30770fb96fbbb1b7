"""Networks to measure with: imported weights where there are any, and otherwise weights drawn at random."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import nn

from shared.catalog import MENU
from shared.settings import settings
from worker.encoders.placed import Placed
from worker.encoders.published import find_card
from worker.models import load
from worker.models.contract import Model
from worker.models.placement import Placement

DRAWN = "drawn at random, none are imported (speed does not depend on them)"

N = TypeVar("N", bound=nn.Module)


def drawn(network: N) -> N:
    """The network with normal random numbers for its tables, those of each seeded with its name, and no biases."""
    with torch.no_grad():
        for name, values in network.named_parameters():
            if values.ndim > 1:
                generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
                values.normal_(0, values[0].numel() ** -0.5, generator=generator)
            elif name.endswith("bias"):
                values.zero_()
    return network


@dataclass(frozen=True, slots=True)
class Networks(Generic[N]):
    """The same weights for both sides.

    Args:
        published: as its authors run it: fp32, channels first.
        models: the room on a CPU by precision: fp32 first, then that of this processor.
        weights: in words: which.
    """

    published: N
    models: dict[str, Model]
    weights: str


def networks(name: str, build: Callable[[], N], here: Placement) -> Networks[N]:
    """The networks of a room.

    Args:
        name: of the room.
        build: makes its network, with any numbers.
        here: this processor.
    """
    spec, folders = MENU[name].weights, [settings().weights_dir]
    fp32 = Placement("cpu", "fp32", "torch", here.threads)
    if spec is not None and find_card(spec, folders) is not None:
        said = "imported"
        placed: Placed[N] = load(name).load(folders, fp32)
        plain = _plain(placed.network)
    else:
        said, plain = DRAWN, drawn(build()).eval().requires_grad_(False)
        placed = Placed.put(copy.deepcopy(plain), "cpu", "fp32")
    models = {
        precision: Model(
            load(name),
            Placement("cpu", precision, "torch", here.threads),
            (),
            Placed(placed.network, placed.device, precision),
        )
        for precision in dict.fromkeys(["fp32", here.precision])
    }
    return Networks(plain, models, said)


def _plain(network: N) -> N:
    """A copy whose convolutions are laid out channels first."""
    plain = copy.deepcopy(network)
    for module in plain.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            module.weight.data = module.weight.data.contiguous()
    return plain
