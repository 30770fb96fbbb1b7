"""The manifest of a model's weights: which published files they are imported from, and how names are mapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from shared.catalog import WeightsSpec
from worker.weights.formats import Shapes

if TYPE_CHECKING:
    from torch import Tensor

StateDict = Mapping[str, "Tensor"]


def _no_constants() -> StateDict:
    return {}


def _accept_side_files(_sides: Mapping[str, Path]) -> None:
    """Accept any side files that are JSON or text."""


@dataclass(frozen=True, slots=True)
class TensorFile:
    """One published file of tensors, and how its names become those of the network.

    Names are mapped in this order: `wrapper_prefix`, `submodule_marker`, `drop_patterns`, `strip_prefix`, `add_prefix`.

    Args:
        name: file name as published, with its folder below that of the model.
        description: what is in it, for users.
        drop_patterns: patterns (`*`, `?`) of names that serving does not need, as in the file without `module.`.
        strip_prefix: removed from each name that has it.
        add_prefix: put before each name: where the network holds this part.
        wrapper_prefix: prefix of every name in a fine-tuned file; removed where all names have it and the rest fits.
        submodule_marker: where names contain this, only those are taken, and each is cut up to its end: the network is
            a part of the one in the file.
        sha256: of the published file; the card records whether it is this one. Any other is imported all the same.
    """

    name: str
    description: str
    drop_patterns: tuple[str, ...] = ()
    strip_prefix: str = ""
    add_prefix: str = ""
    wrapper_prefix: str = ""
    submodule_marker: str = ""
    sha256: str | None = None

    def candidate_states(self, state: StateDict) -> Iterator[dict[str, Tensor]]:
        """Yield the needed tensors by the names of the network: first as they are, then without `wrapper_prefix`."""
        yield self._rename_keys(state)
        if self.wrapper_prefix and all(key.startswith(self.wrapper_prefix) for key in state):
            yield self._rename_keys({key.removeprefix(self.wrapper_prefix): value for key, value in state.items()})

    def _rename_keys(self, state: StateDict) -> dict[str, Tensor]:
        if self.submodule_marker and any(self.submodule_marker in key for key in state):
            state = {
                key.partition(self.submodule_marker)[2]: value
                for key, value in state.items()
                if self.submodule_marker in key
            }
        return {
            self.add_prefix + key.removeprefix(self.strip_prefix): value
            for key, value in state.items()
            if not any(fnmatchcase(key, pattern) for pattern in self.drop_patterns)
        }


@dataclass(frozen=True, slots=True)
class SideFile:
    """One published file that serving needs beside the tensors: JSON or text.

    Args:
        name: file name as published, with its folder below that of the model.
        stored_as: name that the model uses; stored as `<model>.<stored_as>`. `.json` is checked to be JSON.
        description: what is in it, for users.
    """

    name: str
    stored_as: str
    description: str

    @property
    def base_name(self) -> str:
        """The name without a folder."""
        return PurePosixPath(self.name).name


@dataclass(frozen=True, slots=True)
class WeightsManifest:
    """How the weights of one model are imported.

    Args:
        spec: its entry in the catalog, without a hash: file name (`<model>.safetensors`), licence, origin, and the
            command that downloads the weights.
        tensor_files: the files that together hold the weights.
        architecture, preprocessing: for the card.
        expected_shapes: name and shape of every tensor that the network needs; called when weights are imported.
        repository: on ModelScope's hub, where the hub has the files.
        side_files: the files that serving needs beside the tensors.
        make_constants: tensors that the network computes itself (tables of positions, counters), by their published
            names. A file may hold them or not; what it holds must have this shape and, unless the tensor here is on the
            `meta` device, these values. They are not stored, and `expected_shapes` does not name them.
        check_side_files: reads the side files, by `stored_as`, before they are stored; WeightsCorrupt for files
            that the model could not use.
    """

    spec: WeightsSpec
    tensor_files: tuple[TensorFile, ...]
    architecture: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    expected_shapes: Callable[[], Shapes]
    repository: str | None = None
    side_files: tuple[SideFile, ...] = ()
    make_constants: Callable[[], StateDict] = _no_constants
    check_side_files: Callable[[Mapping[str, Path]], object] = _accept_side_files

    @property
    def model_name(self) -> str:
        """Name of the model."""
        return Path(self.spec.name).stem

    @property
    def all_files(self) -> tuple[TensorFile | SideFile, ...]:
        """All published files."""
        return *self.tensor_files, *self.side_files

    def stored_name(self, side: SideFile) -> str:
        """Name of a side file beside the tensors."""
        return f"{self.model_name}.{side.stored_as}"

    def describe_files(self) -> str:
        """List the files, for users."""
        return "; ".join(f"{file.name}: {file.description}" for file in self.all_files)
