"""Imported weights on their way to a room: verified against their card, and strict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shared.catalog import WeightsSpec
from shared.errors import WeightsCorrupt, WeightsMissing
from worker.encoders.containers import Shapes, misfits, read_safetensors
from worker.encoders.published.card import CARD_SUFFIX, Card, FileFacts
from worker.encoders.published.declared import Published
from worker.encoders.weights import sha256, verify

if TYPE_CHECKING:
    from torch import Tensor


def fingerprint(spec: WeightsSpec, folders: Sequence[Path]) -> str:
    """Hash of a model's weights, pinned on the menu or imported, after the files were compared with it.

    Raises:
        WeightsMissing, WeightsCorrupt: as `verify` and `verify_imported`.
    """
    return sha256(verify(spec, folders)) if spec.sha256 else verify_imported(spec, folders).fingerprint


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
    """The card of imported weights that are what their card says, tensors and side files.

    Raises:
        WeightsMissing: they are nowhere, or a side file is not there; the detail names the command that gets them.
        WeightsCorrupt: size or hash of one is another, or the card is of another model or cannot be read.
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
    said = misfits(expected, state)
    if said:
        raise WeightsCorrupt(f"{spec.name} does not fit the network: {said}.")
    return state


def side_files(published: Published, folders: Sequence[Path]) -> dict[str, Path]:
    """The files beside the tensors, each by what its room asks for it by (`Side.as_`), verified.

    Raises:
        WeightsMissing, WeightsCorrupt: as `verify_imported`; also where the weights were imported without one.
    """
    path, card = _verified(published.spec, folders)
    known = {side.name for side in card.sides}
    for side in published.sides:
        if published.kept(side) not in known:
            raise WeightsCorrupt(f"{card.room} was imported without {side.name}. Import the weights again.")
    return {side.as_: path.parent / published.kept(side) for side in published.sides}


def _verified(spec: WeightsSpec, folders: Sequence[Path]) -> tuple[Path, Card]:
    found = find_card(spec, folders)
    if found is None:
        raise WeightsMissing(f"The weights {spec.name} are not there. Get them with: {spec.how}")
    path, card = found
    if card.weights != FileFacts.of(path):
        raise WeightsCorrupt(f"{spec.name} is not the file that its card describes. Get it again with: {spec.how}")
    for side in card.sides:
        beside = path.with_name(side.name)
        if not beside.is_file():
            raise WeightsMissing(f"The weights file {side.name} is not there. Get it again with: {spec.how}")
        if side != FileFacts.of(beside):
            raise WeightsCorrupt(f"{side.name} is not the file that its card describes. Get it again with: {spec.how}")
    return found
