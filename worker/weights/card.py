"""The card beside imported weights: what they are and where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256 as digest
from pathlib import Path
from typing import Any

from shared.errors import WeightsCorrupt
from worker.weights.pinned import file_sha256

CARD_VERSION = 1
CARD_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Name, hash and size of a file at the time it was read or written."""

    name: str
    sha256: str
    size: int

    @classmethod
    def from_path(cls, path: Path) -> FileFacts:
        """Read name, hash and size of a file."""
        return cls(path.name, file_sha256(path), path.stat().st_size)


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """A published file at the time it was imported.

    Args:
        name, sha256, size: as `FileFacts`; the name is that of the file which was imported.
        published: whether it equals the file that its authors published; None where that hash is not known.
    """

    name: str
    sha256: str
    size: int
    published: bool | None = None

    @classmethod
    def from_path(cls, path: Path, pinned: str | None = None) -> SourceFacts:
        """Read name, hash and size of a file, and compare the hash with that of the published file."""
        file_hash = file_sha256(path)
        return cls(path.name, file_hash, path.stat().st_size, file_hash == pinned if pinned else None)


@dataclass(frozen=True, slots=True)
class WeightsCard:
    """The card of imported weights. Fields are named as in the JSON files on users' disks, `room` among them.

    Args:
        room: name of the model.
        weights: the safetensors file.
        sources: the published files that it was imported from.
        architecture, preprocessing, licence, origin: as the model declares them.
        imported_at: ISO 8601.
        sides: the files beside the tensors.
    """

    room: str
    weights: FileFacts
    sources: tuple[SourceFacts, ...]
    architecture: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    licence: str
    origin: str
    imported_at: str
    sides: tuple[FileFacts, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Hash of the file of tensors; where there are side files, hash of all names and hashes together."""
        if not self.sides:
            return self.weights.sha256
        files = [self.weights, *sorted(self.sides, key=lambda side: side.name)]
        return digest("".join(f"{file.sha256}  {file.name}\n" for file in files).encode()).hexdigest()

    def to_json(self) -> str:
        """Serialise the card for its file."""
        return json.dumps({"version": CARD_VERSION, **asdict(self)}, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_file(cls, path: Path) -> WeightsCard:
        """Read a card; WeightsCorrupt when the file is not a card of this version."""
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record.pop("version") != CARD_VERSION:
                raise WeightsCorrupt(f"{path.name} is a card of another version. Import the weights again.")
            weights = FileFacts(**record.pop("weights"))
            sources = tuple(SourceFacts(**file) for file in record.pop("sources"))
            sides = tuple(FileFacts(**file) for file in record.pop("sides", ()))
            return cls(weights=weights, sources=sources, sides=sides, **record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsCorrupt(f"{path.name} is no card of weights. Import the weights again.") from error
