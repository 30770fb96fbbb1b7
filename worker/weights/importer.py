"""Import weights: from published files to tensors, side files and a card, in one folder."""

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
from worker.weights.card import CARD_SUFFIX, FileFacts, SourceFacts, WeightsCard
from worker.weights.formats import Shapes, describe_mismatch, read_container
from worker.weights.manifest import SideFile, StateDict, TensorFile, WeightsManifest

if TYPE_CHECKING:
    from torch import Tensor

FLOAT_TOLERANCE = 1e-5
"""Largest difference of a float32 constant from the network's own; a shorter type is allowed its rounding."""


@dataclass(frozen=True, slots=True)
class ImportFiles:
    """The files to import, sorted by role.

    Args:
        tensor_files: files of tensors, in the order given.
        side_files: each file that serving needs beside them.
    """

    tensor_files: tuple[Path, ...]
    side_files: Mapping[SideFile, Path]


@dataclass(frozen=True, slots=True)
class ImportedTensors:
    """Tensors by the model's names, and which published file each file was read as."""

    tensors: dict[str, Tensor]
    files: tuple[tuple[TensorFile, Path], ...]


def import_weights(
    manifest: WeightsManifest, paths: Sequence[Path], folder: Path, imported_at: datetime
) -> WeightsCard:
    """Read the published files once, check every name and shape, and write tensors, side files and card.

    Args:
        manifest: of the model.
        paths: the files, in any order: files of tensors are recognised by their content, side files by name. Or one
            folder that holds them under their published names.
        folder: where to write.
        imported_at: for the card.

    Nothing is written unless everything fits.

    Raises:
        InvalidRequest: there are too few or too many files, or the folder does not hold one of them.
        WeightsCorrupt: a file cannot be read; or tensors are missing, unknown or of another shape, and which.
    """
    import_files = _sort_files(manifest, paths)
    for side, path in import_files.side_files.items():
        _check_side_file(side, path)
    manifest.check_side_files({side.stored_as: path for side, path in import_files.side_files.items()})
    expected, constants = manifest.expected_shapes(), manifest.make_constants()
    imported = _read_tensors(manifest, import_files.tensor_files, expected)
    name = " and ".join(file.name for file in import_files.tensor_files)
    _check_fit(name, expected, _remove_constants(name, imported.tensors, constants))
    return _write_files(manifest, imported, import_files.side_files, folder, imported_at)


# Input files ----------------------------------------------------------------------------------------------------------


def _sort_files(manifest: WeightsManifest, paths: Sequence[Path]) -> ImportFiles:
    if len(paths) == 1 and paths[0].is_dir():
        return _files_in_folder(manifest, paths[0])
    if any(path.is_dir() for path in paths):
        raise InvalidRequest("One folder is imported, or files are: not both, and not several folders.")
    names = {side.base_name: side for side in manifest.side_files}
    side_files = {names[path.name]: path for path in paths if path.name in names}
    tensor_files = tuple(path for path in paths if path.name not in names)
    if (
        len(tensor_files) != len(manifest.tensor_files)
        or len(side_files) != len(manifest.side_files)
        or len(paths) != len(manifest.all_files)
    ):
        count = len(manifest.all_files)
        raise InvalidRequest(
            f"The weights of {manifest.model_name} are made from {count} files: {manifest.describe_files()}."
        )
    return ImportFiles(tensor_files, side_files)


def _files_in_folder(manifest: WeightsManifest, folder: Path) -> ImportFiles:
    """Take the files from a folder that holds them under their published names."""
    missing = [file.name for file in manifest.all_files if not (folder / file.name).is_file()]
    if missing:
        raise InvalidRequest(
            f"The folder {folder.name} holds no {', no '.join(missing)}. "
            f"The weights of {manifest.model_name} are made from: {manifest.describe_files()}."
        )
    return ImportFiles(
        tuple(folder / source.name for source in manifest.tensor_files),
        {side: folder / side.name for side in manifest.side_files},
    )


def _check_side_file(side: SideFile, path: Path) -> None:
    """Raise WeightsCorrupt for a file that is not text, or not JSON where its name says so."""
    try:
        text = path.read_text(encoding="utf-8")
        if not text.strip() or (side.stored_as.endswith(".json") and not isinstance(json.loads(text), dict)):
            raise WeightsCorrupt(f"{path.name} is empty, or not what it should be: {side.description}.")
    except (ValueError, RecursionError) as error:
        raise WeightsCorrupt(
            f"{path.name} cannot be read: it is cut off, damaged, or not {side.description}."
        ) from error


# Tensors --------------------------------------------------------------------------------------------------------------


def _read_tensors(manifest: WeightsManifest, files: Sequence[Path], expected: Shapes) -> ImportedTensors:
    """Read the tensors of all files by the names of the network.

    Users name the files as they like, so every assignment of files to published files is tried, and the one that gives
    most of the expected names is taken. There are two files at most.
    """
    states = {file: read_container(file) for file in files}

    def count_known(keys: Mapping[str, Tensor]) -> int:
        return len(keys.keys() & expected.keys())

    def rename_states(order: Sequence[Path]) -> list[dict[str, Tensor]]:
        pairs = zip(manifest.tensor_files, order, strict=True)
        return [max(source.candidate_states(states[file]), key=count_known) for source, file in pairs]

    def count_matches(order: Sequence[Path]) -> int:
        return count_known({key: value for part in rename_states(order) for key, value in part.items()})

    order = max(permutations(files), key=count_matches)
    merged: dict[str, Tensor] = {}
    for part in rename_states(order):
        duplicates = sorted(merged.keys() & part.keys())
        if duplicates:
            raise WeightsCorrupt(f"Two files hold the same tensor: {duplicates[0]}.")
        merged |= part
    return ImportedTensors(merged, tuple(zip(manifest.tensor_files, order, strict=True)))


def _remove_constants(name: str, state: dict[str, Tensor], constants: StateDict) -> StateDict:
    """Remove tensors that the network computes itself; WeightsCorrupt where their values differ from its own."""
    present = {key: state.pop(key) for key in sorted(state.keys() & constants.keys())}
    mismatch = describe_mismatch({key: tuple(constants[key].shape) for key in present}, present)
    if mismatch:
        raise WeightsCorrupt(f"{name} does not fit the network: {mismatch}.")
    differing = [key for key in present if not _values_agree(present[key], constants[key])]
    if differing:
        raise WeightsCorrupt(
            f"{name} does not fit the network: {differing[0]} has other values than the network's own."
        )
    return state


def _values_agree(tensor: Tensor, expected: Tensor) -> bool:
    import torch

    if expected.is_meta:
        return True
    if not expected.is_floating_point():
        return torch.equal(tensor.to(expected.dtype), expected) and torch.equal(tensor, expected.to(tensor.dtype))
    tolerance = max(FLOAT_TOLERANCE, torch.finfo(tensor.dtype).eps) if tensor.is_floating_point() else FLOAT_TOLERANCE
    return torch.allclose(tensor.double(), expected.double(), rtol=tolerance, atol=tolerance)


def _check_fit(name: str, expected: Shapes, state: StateDict) -> None:
    mismatch = describe_mismatch(expected, state)
    if mismatch:
        raise WeightsCorrupt(f"{name} does not fit the network: {mismatch}.")


# Writing --------------------------------------------------------------------------------------------------------------


def _write_files(
    manifest: WeightsManifest,
    imported: ImportedTensors,
    sides: Mapping[SideFile, Path],
    folder: Path,
    imported_at: datetime,
) -> WeightsCard:
    """Write side files, tensors and card, each atomically; after a crash between them the hashes do not match."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".import-", dir=folder) as scratch:
        tensors = Path(scratch) / manifest.spec.name
        card_path = tensors.with_suffix(CARD_SUFFIX)
        side_copies = [
            Path(shutil.copyfile(path, tensors.with_name(manifest.stored_name(side)))) for side, path in sides.items()
        ]
        save_file(_copy_tensors(imported.tensors), tensors)
        card = WeightsCard(
            room=manifest.model_name,
            weights=FileFacts.from_path(tensors),
            sources=tuple(SourceFacts.from_path(file, source.sha256) for source, file in imported.files),
            architecture=manifest.architecture,
            preprocessing=manifest.preprocessing,
            licence=manifest.spec.licence,
            origin=manifest.spec.origin,
            imported_at=imported_at.isoformat(),
            sides=tuple(FileFacts.from_path(file) for file in side_copies),
        )
        card_path.write_text(card.to_json(), encoding="utf-8")
        for file in (*side_copies, tensors, card_path):
            _sync_to_disk(file)
            file.replace(folder / file.name)
    _sync_to_disk(folder)
    return card


def _copy_tensors(state: StateDict) -> dict[str, Tensor]:
    """Copy tensors so that no two share memory (safetensors refuses that), real numbers as float32."""
    copies: dict[str, Tensor] = {}
    storages: set[int] = set()
    for key, value in state.items():
        tensor = (value.float() if value.is_floating_point() else value).contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in storages or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        copies[key] = tensor
    return copies


def _sync_to_disk(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
