"""A model of seven tensors and two parts, and its weights in every container in which networks are published."""

from __future__ import annotations

import warnings
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from shared.catalog import WeightsSpec
from worker.weights import SideFile, TensorFile, WeightsManifest
from worker.weights.pinned import state_shapes

StateDict = dict[str, Tensor]
IMPORTED_AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Network(nn.Module):
    """A part that encodes and a part that answers, each as small as it can be."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 4, 3), bn1=nn.BatchNorm2d(4)))
        self.boundary = nn.Linear(4, 2)


EXPECTED = state_shapes(Network())
ONE_FILE = WeightsManifest(
    WeightsSpec("tiny.safetensors", "", 0, "MIT", "made here", "sceneworks-worker weights import tiny tiny.pt"),
    (TensorFile("tiny.pt", "everything"),),
    {"layers": 2},
    {"short_side": 224},
    lambda: EXPECTED,
)
ENCODER = TensorFile(
    "encoder.pth.tar", "the encoder after pre-training",
    drop_patterns=("encoder_k.*", "encoder_q.fc.*", "queue", "queue_ptr"),
    strip_prefix="encoder_q.", add_prefix="encoder.",
)  # fmt: skip
TWO_FILES = WeightsManifest(
    ONE_FILE.spec,
    (ENCODER, TensorFile("model_best.pth.tar", "the head", add_prefix="boundary.")),
    {},
    {},
    lambda: EXPECTED,
)
WITH_TOKENIZER = replace(
    ONE_FILE,
    side_files=(
        SideFile("words/vocab.json", "vocab.json", "the words"),
        SideFile("words/merges.txt", "merges.txt", "the pairs"),
    ),
)
TOKENIZER_FILES = {"vocab.json": b'{"a": 0}', "merges.txt": b"#version: 0.2\na b\n"}
"""What lies beside the tensors of `WITH_TOKENIZER`."""


def make_seeded_state(names: dict[str, tuple[int, ...]]) -> StateDict:
    """Every tensor a function of its name and shape."""
    state = {}
    for name, shape in names.items():
        values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
        counts = name.endswith("num_batches_tracked")
        state[name] = torch.tensor(0) if counts else torch.from_numpy(np.asarray(values, dtype=np.float32))
    return state


STATE = make_seeded_state(dict(EXPECTED))


# Containers -----------------------------------------------------------------------------------------------------------


def save_zip(payload: Any, path: Path) -> None:
    torch.save(payload, path)


def save_legacy(payload: Any, path: Path) -> None:
    torch.save(payload, path, _use_new_zipfile_serialization=False)


def wrap_checkpoint(state: StateDict) -> dict[str, Any]:
    """What a training script keeps: its own entries beside the state dict of a network on many GPUs."""
    wrapped = {f"module.{name}": value for name, value in state.items()}
    return {"epoch": 100, "arch": "resnet50", "state_dict": wrapped, "optimizer": {"state": {}, "param_groups": [{}]}}


def save_torchscript(state: StateDict, path: Path) -> None:
    """An archive of TorchScript, without a `forward`."""
    network = Network()
    network.load_state_dict(state)
    with warnings.catch_warnings():
        # Newer releases of torch would rather export; networks that were published as archives stay so.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(network), path)


CONTAINERS: dict[str, Callable[[StateDict, Path], None]] = {
    "flat": save_zip,
    "flat stream": save_legacy,
    "ordered": lambda state, path: save_zip(OrderedDict(state), path),
    "parameters": lambda state, path: save_zip({key: nn.Parameter(state[key], False) for key in state}, path),
    "state_dict": lambda state, path: save_zip({"state_dict": state, "epoch": 3}, path),
    "params": lambda state, path: save_zip({"params": state, "iter": 7}, path),
    "TorchScript": save_torchscript,
    "training script": lambda state, path: save_zip(wrap_checkpoint(state), path),
    "training script, stream": lambda state, path: save_legacy(wrap_checkpoint(state), path),
    "safetensors": save_file,
}


def equal_states(one: StateDict, other: StateDict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
