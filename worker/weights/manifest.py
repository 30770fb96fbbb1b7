"""What a room says of the files that its weights are imported from."""

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
    """What is JSON or text is good enough."""


@dataclass(frozen=True, slots=True)
class TensorFile:
    """One published file of tensors. Names are taken in this order: `wrapper_prefix`, `submodule_marker`, `drop_patterns`, `strip_prefix`, `add_prefix`.

    Args:
        name: as its authors call it, with its folder below that of the model.
        description: what is in it, for people.
        drop_patterns: patterns (`*`, `?`) of names that serving has no use for, as they stand in the file without `module.`.
        strip_prefix: taken off the front of each name that has it.
        add_prefix: put before each name then: where the room's network holds this part.
        wrapper_prefix: prefix that a fine-tuned file has before every name; taken off where all have it and the rest fits.
        submodule_marker: where names hold this anywhere, those alone are taken, and all of a name up to its end is taken off: the
            network is a part of the one in the file.
        sha256: of the file that was published, for the card to say whether this is it. Another is taken all the same.
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
        """The tensors that serving needs, by the names of the room's network: as they stand, then out of a wrapper."""
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
        name: as its authors call it, with its folder below that of the model.
        stored_as: what the room asks for it by; it is kept as `<room>.<as_>`. `.json` is checked to be JSON.
        description: what is in it, for people.
    """

    name: str
    stored_as: str
    description: str

    @property
    def base_name(self) -> str:
        """Its name without a folder, by which it is told among files."""
        return PurePosixPath(self.name).name


@dataclass(frozen=True, slots=True)
class WeightsManifest:
    """All that a room's weights are imported from.

    Args:
        spec: its entry on the menu, without a hash: file name (`<room>.safetensors`), licence, origin, and the command
            that gets the weights.
        tensor_files: the files that make the room's weights, together.
        architecture, preprocessing: for the card: what these weights are weights of, and what they want to see.
        expected_shapes: name and shape of every tensor that the room's network needs; called when weights are imported.
        repository: on ModelScope's hub, where the hub has the files.
        side_files: the files that serving needs beside the tensors.
        make_constants: tensors that the network makes itself (tables of positions, counters), by the names it would have for
            them. A file may hold them or not; what it holds must be of this shape and, unless the tensor here is on the
            `meta` device, of these values. They are not kept, and `expected_shapes` does not name them.
        check_side_files: reads the side files, by what the room asks for them by, before they are kept; WeightsCorrupt for ones
            that the room could not use.
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
        """The files, for people."""
        return "; ".join(f"{file.name}: {file.description}" for file in self.all_files)
