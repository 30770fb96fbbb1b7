"""Networks to measure with: imported weights where there are any, and otherwise weights drawn at random."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

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
        placed: as the rooms run it, by precision: fp32 first, then that of this processor.
        weights: in words: which.
        loaded: what the room loads, where weights are imported.
    """

    published: N
    placed: dict[str, Placed[N]]
    weights: str
    loaded: Any = None

    def model(self, name: str, precision: str, network: Any = None) -> Model:
        """The room with its network in memory; `network` is what it loads, where that is more than a placed one."""
        threads = torch.get_num_threads()
        return Model(load(name), Placement("cpu", precision, "torch", threads), (), network or self.placed[precision])


def networks(
    name: str, build: Callable[[], N], here: Placement, of: Callable[[Any], Placed[N]] = lambda loaded: loaded
) -> Networks[N]:
    """The networks of a room.

    Args:
        name: of the room.
        build: makes its network, with any numbers.
        here: this processor.
        of: takes the network out of what the room loads.
    """
    spec, folders, loaded = MENU[name].weights, [settings().weights_dir], None
    if spec is not None and find_card(spec, folders) is not None:
        loaded = load(name).load(folders, Placement("cpu", "fp32", "torch", here.threads))
        said, network = "imported", of(loaded).network
        plain = _plain(network)
    else:
        said, plain = DRAWN, drawn(build()).eval().requires_grad_(False)
        network = Placed.put(copy.deepcopy(plain), "cpu", "fp32").network
    placed = {
        precision: Placed(network, torch.device("cpu"), precision)
        for precision in dict.fromkeys(["fp32", here.precision])
    }
    return Networks(plain, placed, said, loaded)


def _plain(network: N) -> N:
    """A copy whose convolutions are laid out channels first."""
    plain = copy.deepcopy(network)
    for module in plain.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            module.weight.data = module.weight.data.contiguous()
    return plain
