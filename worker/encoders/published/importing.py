"""From published files to tensors, side files and a card, in one folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from shared.errors import InvalidRequest, WeightsCorrupt
from worker.encoders.containers import Shapes, misfits, read_container
from worker.encoders.published.card import CARD_SUFFIX, Card, FileFacts, SourceFacts
from worker.encoders.published.declared import Published, Side, Source, State

if TYPE_CHECKING:
    from torch import Tensor

FLOATS_AGREE = 1e-5
"""Largest difference of a constant in float32 from the network's own; a shorter type is allowed its rounding."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a person brought, told apart.

    Args:
        sources: files of tensors, in the order they came.
        sides: each file that serving needs beside them.
    """

    sources: tuple[Path, ...]
    sides: Mapping[Side, Path]


@dataclass(frozen=True, slots=True)
class Reading:
    """Tensors by the room's names, and which published file each file was read as."""

    tensors: dict[str, Tensor]
    files: tuple[tuple[Source, Path], ...]


def import_weights(published: Published, paths: Sequence[Path], folder: Path, imported_at: datetime) -> Card:
    """Read the published files once, check every name and shape, and write tensors, side files and card.

    Args:
        published: what the room says of them.
        paths: the files, in any order: tensors are told by what is in them, side files by their names. Or one folder
            that holds them under their published names.
        folder: of weights.
        imported_at: for the card.

    Nothing is written unless everything fits.

    Raises:
        InvalidRequest: there are too few or too many files, or the folder does not hold one of them.
        WeightsCorrupt: a file cannot be read; or tensors are missing, unknown or of another shape, and which.
    """
    delivery = _delivery(published, paths)
    for side, path in delivery.sides.items():
        _check_side(side, path)
    published.check({side.as_: path for side, path in delivery.sides.items()})
    expected, constants = published.expected(), published.constants()
    reading = _read(published, delivery.sources, expected)
    name = " and ".join(file.name for file in delivery.sources)
    _check_fit(name, expected, _without_constants(name, reading.tensors, constants))
    return _write(published, reading, delivery.sides, folder, imported_at)


# What came ------------------------------------------------------------------------------------------------------------


def _delivery(published: Published, paths: Sequence[Path]) -> Delivery:
    if len(paths) == 1 and paths[0].is_dir():
        return _unfolded(published, paths[0])
    if any(path.is_dir() for path in paths):
        raise InvalidRequest("One folder is imported, or files are: not both, and not several folders.")
    names = {side.file: side for side in published.sides}
    sides = {names[path.name]: path for path in paths if path.name in names}
    sources = tuple(path for path in paths if path.name not in names)
    if (
        len(sources) != len(published.sources)
        or len(sides) != len(published.sides)
        or len(paths) != len(published.files)
    ):
        count = len(published.files)
        raise InvalidRequest(f"The weights of {published.room} are made from {count} files: {published.wanted()}.")
    return Delivery(sources, sides)


def _unfolded(published: Published, folder: Path) -> Delivery:
    """The files of a folder that holds them under their published names."""
    lacking = [file.name for file in published.files if not (folder / file.name).is_file()]
    if lacking:
        raise InvalidRequest(
            f"The folder {folder.name} holds no {', no '.join(lacking)}. "
            f"The weights of {published.room} are made from: {published.wanted()}."
        )
    return Delivery(
        tuple(folder / source.name for source in published.sources),
        {side: folder / side.name for side in published.sides},
    )


def _check_side(side: Side, path: Path) -> None:
    """WeightsCorrupt for what is no text, or no JSON where it says that it is."""
    try:
        text = path.read_text(encoding="utf-8")
        if not text.strip() or (side.as_.endswith(".json") and not isinstance(json.loads(text), dict)):
            raise WeightsCorrupt(f"{path.name} is empty, or not what it should be: {side.what}.")
    except (ValueError, RecursionError) as error:
        raise WeightsCorrupt(f"{path.name} cannot be read: it is cut off, damaged, or not {side.what}.") from error


# Tensors --------------------------------------------------------------------------------------------------------------


def _read(published: Published, files: Sequence[Path], expected: Shapes) -> Reading:
    """The tensors of all files under the room's names, each file read as the source whose names it has."""
    states = {file: read_container(file) for file in files}

    def known(keys: Mapping[str, Tensor]) -> int:
        return len(keys.keys() & expected.keys())

    def read(order: Sequence[Path]) -> list[dict[str, Tensor]]:
        pairs = zip(published.sources, order, strict=True)
        return [max(source.readings(states[file]), key=known) for source, file in pairs]

    def found(order: Sequence[Path]) -> int:
        return known({key: value for part in read(order) for key, value in part.items()})

    order = max(permutations(files), key=found)
    merged: dict[str, Tensor] = {}
    for part in read(order):
        twice = sorted(merged.keys() & part.keys())
        if twice:
            raise WeightsCorrupt(f"Two files hold the same tensor: {twice[0]}.")
        merged |= part
    return Reading(merged, tuple(zip(published.sources, order, strict=True)))


def _without_constants(name: str, state: dict[str, Tensor], constants: State) -> State:
    """Take what the network makes itself out of the tensors, after a look at it."""
    held = {key: state.pop(key) for key in sorted(state.keys() & constants.keys())}
    said = misfits({key: tuple(constants[key].shape) for key in held}, held)
    if said:
        raise WeightsCorrupt(f"{name} does not fit the network: {said}.")
    other = [key for key in held if not _agree(held[key], constants[key])]
    if other:
        raise WeightsCorrupt(f"{name} does not fit the network: {other[0]} has other values than the network's own.")
    return state


def _agree(found: Tensor, own: Tensor) -> bool:
    import torch

    if own.is_meta:
        return True
    if not own.is_floating_point():
        return torch.equal(found.to(own.dtype), own) and torch.equal(found, own.to(found.dtype))
    slack = max(FLOATS_AGREE, torch.finfo(found.dtype).eps) if found.is_floating_point() else FLOATS_AGREE
    return torch.allclose(found.double(), own.double(), rtol=slack, atol=slack)


def _check_fit(name: str, expected: Shapes, state: State) -> None:
    said = misfits(expected, state)
    if said:
        raise WeightsCorrupt(f"{name} does not fit the network: {said}.")


# Writing --------------------------------------------------------------------------------------------------------------


def _write(
    published: Published, reading: Reading, sides: Mapping[Side, Path], folder: Path, imported_at: datetime
) -> Card:
    """Side files, tensors and card, each whole or not at all. A stop between them leaves a hash that says so."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".import-", dir=folder) as scratch:
        tensors = Path(scratch) / published.spec.name
        text = tensors.with_suffix(CARD_SUFFIX)
        beside = [Path(shutil.copyfile(path, tensors.with_name(published.kept(side)))) for side, path in sides.items()]
        save_file(_own(reading.tensors), tensors)
        card = Card(
            room=published.room,
            weights=FileFacts.of(tensors),
            sources=tuple(SourceFacts.of(file, source.sha256) for source, file in reading.files),
            architecture=published.architecture,
            preprocessing=published.preprocessing,
            licence=published.spec.licence,
            origin=published.spec.origin,
            imported_at=imported_at.isoformat(),
            sides=tuple(FileFacts.of(file) for file in beside),
        )
        text.write_text(card.text(), encoding="utf-8")
        for file in (*beside, tensors, text):
            _sync(file)
            file.replace(folder / file.name)
    _sync(folder)
    return card


def _own(state: State) -> dict[str, Tensor]:
    """Tensors that share nothing, real numbers in float32: networks are built in it and take what they get."""
    own: dict[str, Tensor] = {}
    taken: set[int] = set()
    for key, value in state.items():
        alone = (value.float() if value.is_floating_point() else value).contiguous()
        storage = alone.untyped_storage()
        if storage.data_ptr() in taken or storage.nbytes() != alone.nbytes:
            alone = alone.clone()
        taken.add(alone.untyped_storage().data_ptr())
        own[key] = alone
    return own


def _sync(path: Path) -> None:
    """To the disk: the bytes of a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
