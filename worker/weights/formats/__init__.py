"""Read the containers in which networks are published, without running any code that they hold.

| container | how it is known | what is taken |
|---|---|---|
| safetensors | the length of its header, then `{` | every tensor |
| TorchScript archive | a zip with `constants.pkl` | parameters and buffers of its module |
| PyTorch zip (1.6 and newer) | `PK` | the state dict |
| PyTorch stream (0.4 to 1.5), often named `.pth.tar` | a pickled magic number | the state dict |
| checkpoint of Lightning or of a training script | a state dict among its entries (`STATE_DICT_KEYS`) | that entry |

`pickles.py` and `torchscript.py` say how each stays harmless.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from shared.errors import WeightsCorrupt
from worker.weights.formats.pickles import READ_ERRORS, read_pickle, shorten_names
from worker.weights.formats.torchscript import is_torchscript, read_torchscript

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

PARALLEL_PREFIX = "module."
"""Before every name that DataParallel or DistributedDataParallel wrote."""
STATE_DICT_KEYS = ("params", "model_state_dict", "state_dict")
"""Entries under which training scripts keep the state dict, beside an epoch and an optimiser."""


def read_container(path: Path) -> dict[str, Tensor]:
    """Read the tensors by name, on the CPU; `module.` in front of all names is removed.

    Raises:
        WeightsCorrupt: cut off, not a container, or it asks for something that could be run.
    """
    import torch

    state = next((state for state in _candidate_states(path) if _is_state_dict(state)), None)
    if state is None:
        raise WeightsCorrupt(f"{path.name} holds something other than tensors by name.")
    prefix_length = len(PARALLEL_PREFIX) if all(key.startswith(PARALLEL_PREFIX) for key in state) else 0
    return {key[prefix_length:]: torch.Tensor.detach(value) for key, value in state.items()}


def _candidate_states(path: Path) -> Iterator[Any]:
    """Yield what may be the state dict: the whole content of the file, or one entry of it."""
    if _is_safetensors(path):
        yield read_safetensors(path)
    elif is_torchscript(path):
        yield read_torchscript(path)
    else:
        payload = read_pickle(path)
        yield payload
        yield from (payload[key] for key in STATE_DICT_KEYS if isinstance(payload, Mapping) and key in payload)


def _is_state_dict(value: Any) -> TypeGuard[Mapping[str, Tensor]]:
    entries = value.items() if isinstance(value, Mapping) else ()
    return bool(entries) and all(isinstance(key, str) and _is_dense_tensor(tensor) for key, tensor in entries)


def _is_dense_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_quantized


def describe_mismatch(expected: Shapes, state: Mapping[str, Tensor]) -> str:
    """Describe names that are missing, unknown, or of another shape; empty if the tensors fit."""
    reshaped = sorted(key for key in expected.keys() & state.keys() if tuple(state[key].shape) != tuple(expected[key]))
    faults = {
        "missing": sorted(expected.keys() - state.keys()),
        "unknown": sorted(state.keys() - expected.keys()),
        "of another shape": [
            f"{key}: {_format_shape(state[key].shape)} instead of {_format_shape(expected[key])}" for key in reshaped
        ],
    }
    return "; ".join(f"{len(names)} {fault} ({shorten_names(names)})" for fault, names in faults.items() if names)


def _format_shape(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"


# Safetensors ----------------------------------------------------------------------------------------------------------


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors by name, on the CPU; WeightsCorrupt when the file is cut off, damaged or of another kind."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, *READ_ERRORS) as error:
        raise WeightsCorrupt(f"{path.name} cannot be read as weights: it is cut off or damaged.") from error
