"""Load imported weights for serving: verified against their card, every name and shape checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shared.catalog import WeightsSpec
from shared.errors import WeightsCorrupt, WeightsMissing
from worker.weights.card import CARD_SUFFIX, FileFacts, WeightsCard
from worker.weights.formats import Shapes, describe_mismatch, read_safetensors
from worker.weights.manifest import WeightsManifest
from worker.weights.pinned import file_sha256, verify_pinned

if TYPE_CHECKING:
    from torch import Tensor


def compute_fingerprint(spec: WeightsSpec, folders: Sequence[Path]) -> str:
    """Verify a model's weights, pinned in the catalog or imported, and return their hash.

    Raises:
        WeightsMissing, WeightsCorrupt: as `verify_pinned` and `verify_imported`.
    """
    return file_sha256(verify_pinned(spec, folders)) if spec.sha256 else verify_imported(spec, folders).fingerprint


def find_card(spec: WeightsSpec, folders: Sequence[Path]) -> tuple[Path, WeightsCard] | None:
    """Find imported weights and read their card, without verifying either; None where no folder has them.

    Raises:
        WeightsCorrupt: the tensors are there without a card, or with one that cannot be read.
    """
    tensors = next((folder / spec.name for folder in folders if (folder / spec.name).is_file()), None)
    if tensors is None:
        return None
    card = tensors.with_suffix(CARD_SUFFIX)
    if not card.is_file():
        raise WeightsCorrupt(f"{spec.name} has no card beside it. Get it again with: {spec.how}")
    return tensors, WeightsCard.from_file(card)


def verify_imported(spec: WeightsSpec, folders: Sequence[Path]) -> WeightsCard:
    """Verify imported tensors and side files against their card, and return it.

    Raises:
        WeightsMissing: no folder has them, or a side file is missing; the detail names the command that gets them.
        WeightsCorrupt: size or hash of a file differs, or the card cannot be read.
    """
    return _verify_files(spec, folders)[1]


def load_imported(spec: WeightsSpec, folders: Sequence[Path], expected: Shapes) -> dict[str, Tensor]:
    """Load the tensors by name, on the CPU, each in the shape that the network has.

    Raises:
        WeightsMissing: as `verify_imported`.
        WeightsCorrupt: as `verify_imported`; also for names or shapes that the network does not have.
    """
    path, _ = _verify_files(spec, folders)
    state = read_safetensors(path)
    mismatch = describe_mismatch(expected, state)
    if mismatch:
        raise WeightsCorrupt(f"{spec.name} does not fit the network: {mismatch}.")
    return state


def find_side_files(manifest: WeightsManifest, folders: Sequence[Path]) -> dict[str, Path]:
    """Find the files beside the tensors, each by its `SideFile.stored_as`, verified.

    Raises:
        WeightsMissing, WeightsCorrupt: as `verify_imported`; also where the weights were imported without one.
    """
    path, card = _verify_files(manifest.spec, folders)
    known = {side.name for side in card.sides}
    for side in manifest.side_files:
        if manifest.stored_name(side) not in known:
            raise WeightsCorrupt(f"{card.room} was imported without {side.name}. Import the weights again.")
    return {side.stored_as: path.parent / manifest.stored_name(side) for side in manifest.side_files}


def _verify_files(spec: WeightsSpec, folders: Sequence[Path]) -> tuple[Path, WeightsCard]:
    found = find_card(spec, folders)
    if found is None:
        raise WeightsMissing(f"The weights {spec.name} are not there. Get them with: {spec.how}")
    path, card = found
    if card.weights != FileFacts.from_path(path):
        raise WeightsCorrupt(f"{spec.name} is not the file that its card describes. Get it again with: {spec.how}")
    for side in card.sides:
        side_path = path.with_name(side.name)
        if not side_path.is_file():
            raise WeightsMissing(f"The weights file {side.name} is not there. Get it again with: {spec.how}")
        if side != FileFacts.from_path(side_path):
            raise WeightsCorrupt(f"{side.name} is not the file that its card describes. Get it again with: {spec.how}")
    return found
