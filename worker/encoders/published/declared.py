"""What a room says of the files that its weights are imported from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from shared.catalog import WeightsSpec
from worker.encoders.containers import Shapes

if TYPE_CHECKING:
    from torch import Tensor

State = Mapping[str, "Tensor"]


def _none() -> State:
    return {}


def _unread(_sides: Mapping[str, Path]) -> None:
    """What is JSON or text is good enough."""


@dataclass(frozen=True, slots=True)
class Source:
    """One published file of tensors. Names are taken in this order: `wrapper`, `after`, `drop`, `strip`, `put`.

    Args:
        name: as its authors call it, with its folder below that of the model.
        what: what is in it, for people.
        drop: patterns (`*`, `?`) of names that serving has no use for, as they stand in the file without `module.`.
        strip: taken off the front of each name that has it.
        put: put before each name then: where the room's network holds this part.
        wrapper: prefix that a fine-tuned file has before every name; taken off where all have it and the rest fits.
        after: where names hold this anywhere, those alone are taken, and all of a name up to its end is taken off: the
            network is a part of the one in the file.
        sha256: of the file that was published, for the card to say whether this is it. Another is taken all the same.
    """

    name: str
    what: str
    drop: tuple[str, ...] = ()
    strip: str = ""
    put: str = ""
    wrapper: str = ""
    after: str = ""
    sha256: str | None = None

    def readings(self, state: State) -> Iterator[dict[str, Tensor]]:
        """The tensors that serving needs, by the names of the room's network: as they stand, then out of a wrapper."""
        yield self._rename(state)
        if self.wrapper and all(key.startswith(self.wrapper) for key in state):
            yield self._rename({key.removeprefix(self.wrapper): value for key, value in state.items()})

    def _rename(self, state: State) -> dict[str, Tensor]:
        if self.after and any(self.after in key for key in state):
            state = {key.partition(self.after)[2]: value for key, value in state.items() if self.after in key}
        return {
            self.put + key.removeprefix(self.strip): value
            for key, value in state.items()
            if not any(fnmatchcase(key, pattern) for pattern in self.drop)
        }


@dataclass(frozen=True, slots=True)
class Side:
    """One published file that serving needs beside the tensors: JSON or text.

    Args:
        name: as its authors call it, with its folder below that of the model.
        as_: what the room asks for it by; it is kept as `<room>.<as_>`. `.json` is checked to be JSON.
        what: what is in it, for people.
    """

    name: str
    as_: str
    what: str

    @property
    def file(self) -> str:
        """Its name without a folder, by which it is told among files."""
        return PurePosixPath(self.name).name


@dataclass(frozen=True, slots=True)
class Published:
    """All that a room's weights are imported from.

    Args:
        spec: its entry on the menu, without a hash: file name (`<room>.safetensors`), licence, origin, and the command
            that gets the weights.
        sources: the files that make the room's weights, together.
        architecture, preprocessing: for the card: what these weights are weights of, and what they want to see.
        expected: name and shape of every tensor that the room's network needs; called when weights are imported.
        repository: on ModelScope's hub, where the hub has the files.
        sides: the files that serving needs beside the tensors.
        constants: tensors that the network makes itself (tables of positions, counters), by the names it would have for
            them. A file may hold them or not; what it holds must be of this shape and, unless the tensor here is on the
            `meta` device, of these values. They are not kept, and `expected` does not name them.
        check: reads the side files, by what the room asks for them by, before they are kept; WeightsCorrupt for ones
            that the room could not use.
    """

    spec: WeightsSpec
    sources: tuple[Source, ...]
    architecture: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    expected: Callable[[], Shapes]
    repository: str | None = None
    sides: tuple[Side, ...] = ()
    constants: Callable[[], State] = _none
    check: Callable[[Mapping[str, Path]], object] = _unread

    @property
    def room(self) -> str:
        """Name of the model."""
        return Path(self.spec.name).stem

    @property
    def files(self) -> tuple[Source | Side, ...]:
        """All published files."""
        return *self.sources, *self.sides

    def kept(self, side: Side) -> str:
        """Name of a side file beside the tensors."""
        return f"{self.room}.{side.as_}"

    def wanted(self) -> str:
        """The files, for people."""
        return "; ".join(f"{file.name}: {file.what}" for file in self.files)
