"""Networks to measure with: imported weights where there are any, and otherwise weights drawn at random."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from shared.catalog import CATALOG
from shared.settings import get_settings
from worker.models import load_definition
from worker.models.contract import LoadedModel
from worker.runtime.device import DeviceNetwork
from worker.runtime.placement import Placement
from worker.weights import find_card

RANDOM_WEIGHTS = "drawn at random, none are imported (speed does not depend on them)"

N = TypeVar("N", bound=nn.Module)


def randomize_weights(network: N) -> N:
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
class BenchNetworks(Generic[N]):
    """The same weights for both sides.

    Args:
        baseline: as its authors run it: fp32, channels first.
        by_precision: as the models run it, by precision: fp32 first, then that of this processor.
        weights_label: in words: which.
        loaded: what the model loads, where weights are imported.
    """

    baseline: N
    by_precision: dict[str, DeviceNetwork[N]]
    weights_label: str
    loaded: Any = None

    def build_model(self, name: str, precision: str, network: Any = None) -> LoadedModel:
        """The model with its network in memory; `network` is what it loads, where that is more than a placed one."""
        threads = torch.get_num_threads()
        return LoadedModel(
            load_definition(name),
            Placement("cpu", precision, "torch", threads),
            (),
            network or self.by_precision[precision],
        )


def load_networks(
    model_name: str,
    build: Callable[[], N],
    placement: Placement,
    get_placed: Callable[[Any], DeviceNetwork[N]] = lambda loaded: loaded,
) -> BenchNetworks[N]:
    """The networks of a model.

    Args:
        model_name: of the model.
        build: makes its network, with any numbers.
        placement: this processor.
        get_placed: takes the network out of what the model loads.
    """
    spec, folders, loaded = CATALOG[model_name].weights, [get_settings().weights_dir], None
    if spec is not None and find_card(spec, folders) is not None:
        loaded = load_definition(model_name).load_network(folders, Placement("cpu", "fp32", "torch", placement.threads))
        weights_label, network = "imported", get_placed(loaded).network
        baseline = _copy_channels_first(network)
    else:
        weights_label, baseline = RANDOM_WEIGHTS, randomize_weights(build()).eval().requires_grad_(False)
        network = DeviceNetwork.load_on(copy.deepcopy(baseline), "cpu", "fp32").network
    by_precision = {
        precision: DeviceNetwork(network, torch.device("cpu"), precision)
        for precision in dict.fromkeys(["fp32", placement.precision])
    }
    return BenchNetworks(baseline, by_precision, weights_label, loaded)


def _copy_channels_first(network: N) -> N:
    """A copy whose convolutions are laid out channels first."""
    plain = copy.deepcopy(network)
    for module in plain.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            module.weight.data = module.weight.data.contiguous()
    return plain
