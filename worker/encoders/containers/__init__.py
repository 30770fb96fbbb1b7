"""The containers in which networks are published, read once and without running anything that stands in them.

| container | how it is known | what is taken |
|---|---|---|
| safetensors | the length of its header, then `{` | every tensor |
| TorchScript archive | a zip with `constants.pkl` | parameters and buffers of its module |
| PyTorch zip (1.6 and newer) | `PK` | the state dict |
| PyTorch stream (0.4 to 1.5), often named `.pth.tar` | a pickled magic number | the state dict |
| checkpoint of PyTorch Lightning or of a training script | a state dict among its entries (`INNER`) | that entry |

`pickles.py` and `torchscript.py` say how each stays harmless.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from shared.errors import WeightsCorrupt
from worker.encoders.containers.pickles import UNREADABLE, read_pickle, some
from worker.encoders.containers.torchscript import is_torchscript, read_torchscript

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

PARALLEL = "module."
"""Before every name that DataParallel or DistributedDataParallel wrote."""
INNER = ("params", "model_state_dict", "state_dict")
"""Entries under which training scripts keep the state dict, beside an epoch and an optimiser."""


def read_container(path: Path) -> dict[str, Tensor]:
    """The tensors by name, on the CPU; `module.` in front of all names is taken off.

    Raises:
        WeightsCorrupt: cut off, not a container, or it asks for something that could be run.
    """
    import torch

    state = next((state for state in _candidates(path) if _is_state(state)), None)
    if state is None:
        raise WeightsCorrupt(f"{path.name} holds something other than tensors by name.")
    cut = len(PARALLEL) if all(key.startswith(PARALLEL) for key in state) else 0
    return {key[cut:]: torch.Tensor.detach(value) for key, value in state.items()}


def _candidates(path: Path) -> Iterator[Any]:
    """What may be the state dict: all that is in the file, or one entry of it."""
    if _is_safetensors(path):
        yield read_safetensors(path)
    elif is_torchscript(path):
        yield read_torchscript(path)
    else:
        payload = read_pickle(path)
        yield payload
        yield from (payload[key] for key in INNER if isinstance(payload, Mapping) and key in payload)


def _is_state(value: Any) -> TypeGuard[Mapping[str, Tensor]]:
    entries = value.items() if isinstance(value, Mapping) else ()
    return bool(entries) and all(isinstance(key, str) and _is_plain(tensor) for key, tensor in entries)


def _is_plain(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_quantized


def misfits(expected: Shapes, state: Mapping[str, Tensor]) -> str:
    """What keeps the tensors from fitting: names that are missing, unknown, or of another shape; empty if they fit."""
    other = sorted(key for key in expected.keys() & state.keys() if tuple(state[key].shape) != tuple(expected[key]))
    faults = {
        "missing": sorted(expected.keys() - state.keys()),
        "unknown": sorted(state.keys() - expected.keys()),
        "of another shape": [f"{key}: {_size(state[key].shape)} instead of {_size(expected[key])}" for key in other],
    }
    return "; ".join(f"{len(names)} {fault} ({some(names)})" for fault, names in faults.items() if names)


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"


# Safetensors ----------------------------------------------------------------------------------------------------------


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors by name, on the CPU; WeightsCorrupt when the file is cut off, damaged or of another kind."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, *UNREADABLE) as error:
        raise WeightsCorrupt(f"{path.name} cannot be read as weights: it is cut off or damaged.") from error
