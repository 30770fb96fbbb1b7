"""What lies beside imported weights and says what they are."""

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
    """A file as it was when it was read or written."""

    name: str
    sha256: str
    size: int

    @classmethod
    def from_path(cls, path: Path) -> FileFacts:
        """Its name, hash and bytes."""
        return cls(path.name, file_sha256(path), path.stat().st_size)


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """A published file as it was when it was read.

    Args:
        name, file_sha256, size: as `FileFacts`; the name is the one it came by.
        published: whether it is, to the byte, the file that the authors published; None where their hash is not known.
    """

    name: str
    sha256: str
    size: int
    published: bool | None = None

    @classmethod
    def from_path(cls, path: Path, pinned: str | None = None) -> SourceFacts:
        """Its name, hash and bytes, compared with the hash of the published file."""
        file_hash = file_sha256(path)
        return cls(path.name, file_hash, path.stat().st_size, file_hash == pinned if pinned else None)


@dataclass(frozen=True, slots=True)
class WeightsCard:
    """What lies beside imported weights.

    Args:
        model: name of the model.
        weights: the safetensors file.
        sources: the published files it was made from.
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
        """Hash of the tensors' file; where files lie beside it, hash of all names and hashes together."""
        if not self.sides:
            return self.weights.sha256
        files = [self.weights, *sorted(self.sides, key=lambda side: side.name)]
        return digest("".join(f"{file.sha256}  {file.name}\n" for file in files).encode()).hexdigest()

    def to_json(self) -> str:
        """As it stands in the file."""
        return json.dumps({"version": CARD_VERSION, **asdict(self)}, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_file(cls, path: Path) -> WeightsCard:
        """From its file; WeightsCorrupt when it is no card of this version."""
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
