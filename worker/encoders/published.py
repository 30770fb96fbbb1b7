"""Weights that people bring: imported once from the files their authors published, then served as safetensors.

`<room>.safetensors` holds the tensors, and `<room>.json`, its card, says what they are and where they come from. The
hash on the card is the fingerprint of the weights; the same tensors always give the same file and the same hash.
torch is imported by the functions that need it, so that `weights list` stays quick.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from shared.catalog import WeightsSpec
from shared.errors import InvalidRequest, WeightsCorrupt, WeightsMissing
from worker.encoders.containers import Shapes, misfits, read_container, read_safetensors
from worker.encoders.weights import sha256, verify

if TYPE_CHECKING:
    from torch import Tensor

CARD_VERSION = 1
CARD_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Source:
    """One published file.

    Args:
        name: as its authors call it.
        what: what is in it, for people.
        drop: patterns (`*`, `?`) of names that serving has no use for, as they stand in the file without `module.`.
        strip: taken off the front of each name that has it.
        put: put before each name then: where the room's network holds this part.
    """

    name: str
    what: str
    drop: tuple[str, ...] = ()
    strip: str = ""
    put: str = ""

    def rename(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that serving needs, by the names that the room's network has for them."""
        return {
            self.put + key.removeprefix(self.strip): value
            for key, value in state.items()
            if not any(fnmatchcase(key, pattern) for pattern in self.drop)
        }


@dataclass(frozen=True, slots=True)
class Published:
    """What a room says of the files that its weights are imported from.

    Args:
        spec: its entry on the menu, without a hash: file name (`<room>.safetensors`), licence, origin, and the command
            that gets the weights.
        sources: the files that make the room's weights, together.
        architecture, preprocessing: for the card: what these weights are weights of, and what they want to see.
        expected: name and shape of every tensor of the room's network; called when weights are imported.
        repository: on ModelScope's hub, where the hub has the files.
    """

    spec: WeightsSpec
    sources: tuple[Source, ...]
    architecture: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    expected: Callable[[], Shapes]
    repository: str | None = None

    @property
    def room(self) -> str:
        """Name of the model."""
        return Path(self.spec.name).stem


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file as it was when it was read or written."""

    name: str
    sha256: str
    size: int

    @classmethod
    def of(cls, path: Path) -> FileFacts:
        """Its name, hash and bytes."""
        return cls(path.name, sha256(path), path.stat().st_size)


@dataclass(frozen=True, slots=True)
class Card:
    """What lies beside imported weights.

    Args:
        room: name of the model.
        weights: the safetensors file; its hash is the fingerprint.
        sources: the published files it was made from.
        architecture, preprocessing, licence, origin: as the room declares them.
        imported_at: ISO 8601.
    """

    room: str
    weights: FileFacts
    sources: tuple[FileFacts, ...]
    architecture: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    licence: str
    origin: str
    imported_at: str

    def text(self) -> str:
        """As it stands in the file."""
        return json.dumps({"version": CARD_VERSION, **asdict(self)}, indent=2, sort_keys=True) + "\n"

    @classmethod
    def read(cls, path: Path) -> Card:
        """From its file; WeightsCorrupt when it is no card of this version."""
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if told.pop("version") != CARD_VERSION:
                raise WeightsCorrupt(f"{path.name} is a card of another version. Import the weights again.")
            weights, sources = told.pop("weights"), told.pop("sources")
            return cls(weights=FileFacts(**weights), sources=tuple(FileFacts(**file) for file in sources), **told)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsCorrupt(f"{path.name} is no card of weights. Import the weights again.") from error


# Serving --------------------------------------------------------------------------------------------------------------


def fingerprint(spec: WeightsSpec, folders: Sequence[Path]) -> str:
    """Hash of a model's weights, pinned on the menu or imported, after the file was compared with it.

    Raises:
        WeightsMissing, WeightsCorrupt: as `verify` and `verify_imported`.
    """
    return sha256(verify(spec, folders)) if spec.sha256 else verify_imported(spec, folders).weights.sha256


def find_card(spec: WeightsSpec, folders: Sequence[Path]) -> tuple[Path, Card] | None:
    """The file of imported weights, and its card, which is believed; None where no folder has them.

    Raises:
        WeightsCorrupt: the tensors are there without a card, or with one that cannot be read.
    """
    tensors = next((folder / spec.name for folder in folders if (folder / spec.name).is_file()), None)
    if tensors is None:
        return None
    card = tensors.with_suffix(CARD_SUFFIX)
    if not card.is_file():
        raise WeightsCorrupt(f"{spec.name} has no card beside it. Get it again with: {spec.how}")
    return tensors, Card.read(card)


def verify_imported(spec: WeightsSpec, folders: Sequence[Path]) -> Card:
    """The card of imported weights that are what their card says.

    Raises:
        WeightsMissing: they are nowhere; the detail names the command that gets them.
        WeightsCorrupt: size or hash is another, or the card is of another model or cannot be read.
    """
    return _verified(spec, folders)[1]


def load_imported(spec: WeightsSpec, folders: Sequence[Path], expected: Shapes) -> dict[str, Tensor]:
    """The tensors by name, on the CPU, each in the shape that the network has.

    Raises:
        WeightsMissing: as `verify_imported`.
        WeightsCorrupt: as `verify_imported`; also for names or shapes that the network does not have.
    """
    path, _ = _verified(spec, folders)
    state = read_safetensors(path)
    _check_fit(spec.name, expected, state)
    return state


def _verified(spec: WeightsSpec, folders: Sequence[Path]) -> tuple[Path, Card]:
    found = find_card(spec, folders)
    if found is None:
        raise WeightsMissing(f"The weights {spec.name} are not there. Get them with: {spec.how}")
    path, card = found
    if card.weights != FileFacts.of(path):
        raise WeightsCorrupt(f"{spec.name} is not the file that its card describes. Get it again with: {spec.how}")
    return found


# Importing ------------------------------------------------------------------------------------------------------------


def import_weights(published: Published, files: Sequence[Path], folder: Path, imported_at: datetime) -> Card:
    """Read the published files once, check every name and shape, and write tensors and card.

    The files may come in any order: each is told by what is in it. Nothing is written unless everything fits.

    Raises:
        InvalidRequest: there are too few or too many files.
        WeightsCorrupt: a file cannot be read; or tensors are missing, unknown or of another shape, and which.
    """
    if len(files) != len(published.sources):
        wanted = "; ".join(f"{source.name}: {source.what}" for source in published.sources)
        raise InvalidRequest(f"The weights of {published.room} are made from {len(published.sources)} files: {wanted}.")
    expected = published.expected()
    state = _together(published, [read_container(file) for file in files], expected)
    _check_fit(" and ".join(file.name for file in files), expected, state)
    facts = tuple(FileFacts.of(file) for file in files)
    return _write(published, state, facts, folder, imported_at)


def _together(published: Published, states: Sequence[Mapping[str, Tensor]], expected: Shapes) -> dict[str, Tensor]:
    """The tensors of all files under the room's names, each file read as the source whose names it has."""

    def renamed(order: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        return [source.rename(state) for source, state in zip(published.sources, order, strict=True)]

    def known(parts: list[dict[str, Tensor]]) -> int:
        return len({key for part in parts for key in part} & expected.keys())

    parts = max((renamed(order) for order in permutations(states)), key=known)
    merged: dict[str, Tensor] = {}
    for part in parts:
        twice = sorted(merged.keys() & part.keys())
        if twice:
            raise WeightsCorrupt(f"Two files hold the same tensor: {twice[0]}.")
        merged |= part
    return merged


def _check_fit(name: str, expected: Shapes, state: Mapping[str, Tensor]) -> None:
    said = misfits(expected, state)
    if said:
        raise WeightsCorrupt(f"{name} does not fit the network: {said}.")


def _write(
    published: Published,
    state: Mapping[str, Tensor],
    sources: tuple[FileFacts, ...],
    folder: Path,
    imported_at: datetime,
) -> Card:
    """Tensors and card, each whole or not at all. A stop between the two leaves a hash that says so."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".import-", dir=folder) as scratch:
        tensors = Path(scratch) / published.spec.name
        text = tensors.with_suffix(CARD_SUFFIX)
        save_file({key: _own(value) for key, value in state.items()}, tensors)
        card = Card(
            published.room,
            FileFacts.of(tensors),
            sources,
            published.architecture,
            published.preprocessing,
            published.spec.licence,
            published.spec.origin,
            imported_at.isoformat(),
        )
        text.write_text(card.text(), encoding="utf-8")
        for file in (tensors, text):
            _sync(file)
            file.replace(folder / file.name)
    _sync(folder)
    return card


def _own(value: Tensor) -> Tensor:
    """A tensor with a storage of its own, real numbers in float32: networks are built in it and take what they get."""
    return (value.float() if value.is_floating_point() else value).clone().contiguous()


def _sync(path: Path) -> None:
    """To the disk: the bytes of a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
