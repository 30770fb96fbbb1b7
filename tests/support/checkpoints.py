"""What the published files of a model are made of, and how they come."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.seeded_weights import read_table
from worker.runtime.placement import Placement
from worker.weights import WeightsManifest, import_weights

IMPORTED_AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
CPU_PLACEMENT = Placement(threads=2)
StateDict = dict[str, Tensor]


def make_state(name: str, unused: tuple[str, ...] = ()) -> StateDict:
    """A published state dict with name-seeded weights, without its constants.

    Args:
        name: of the table.
        unused: prefixes of what serving has no use for: zeros, which take no space in a file.
    """
    rows = [row for row in read_table(name) if row.kind != "keep"]
    return {
        row.key: torch.zeros(()).expand(row.shape) if row.key.startswith(unused) else row.make_tensor() for row in rows
    }


def add_prefix(prefix: str, state: StateDict) -> StateDict:
    return {prefix + key: value for key, value in state.items()}


def drop_keys(state: StateDict, *names: str) -> StateDict:
    return {key: value for key, value in state.items() if key not in names}


def import_fingerprint(published: WeightsManifest, payload: Any, folder: Path) -> str:
    """Fingerprint of the weights that come of a file."""
    torch.save(payload, folder / "pytorch_model.pt")
    card = import_weights(published, [folder / "pytorch_model.pt"], folder / "weights", IMPORTED_AT)
    return card.fingerprint


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for files of hundreds of megabytes, which pytest would keep for three runs."""
    folder = Path(mkdtemp(prefix="published-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class Tree(nn.Module):
    """A module of modules with the names of a state dict, and nothing to compute."""

    def __init__(self, state: StateDict) -> None:
        super().__init__()
        parts: dict[str, StateDict] = {}
        for key, value in state.items():
            name, dot, rest = key.partition(".")
            if dot:
                parts.setdefault(name, {})[rest] = value
            elif value.is_floating_point():
                self.register_parameter(name, nn.Parameter(value, requires_grad=False))
            else:
                self.register_buffer(name, value)
        for name, part in parts.items():
            self.add_module(name, Tree(part))


def save_torchscript(state: StateDict, path: Path) -> None:
    """An archive of TorchScript, as OpenAI publishes CLIP."""
    jit: Any = torch.jit
    with warnings.catch_warnings():
        # Newer releases of torch would rather export; networks that were published as archives stay archives.
        warnings.simplefilter("ignore", DeprecationWarning)
        jit.script(Tree(state)).save(str(path))
