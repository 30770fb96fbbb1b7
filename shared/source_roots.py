"""The folders under which sources may lie, and paths checked against them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def parse_roots(setting: str) -> tuple[Path, ...]:
    """The folders of SCENEWORKS_SOURCE_ROOTS, resolved; what is not an absolute path is left out."""
    named = (Path(part.strip()) for part in setting.split(":") if part.strip())
    return tuple(path.resolve() for path in named if path.is_absolute())


def resolve_within(path: Path, roots: Iterable[Path]) -> Path | None:
    """The path with every link resolved, where it then lies in one of the folders; None where it leads out of them."""
    try:
        real = path.resolve()
    except (OSError, RuntimeError):  # links in a circle
        return None
    return real if any(real.is_relative_to(root) for root in roots) else None
