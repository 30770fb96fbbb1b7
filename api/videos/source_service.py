"""Use cases of sources: add, scan, delete. JSON routes and pages both call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from api.http.context import get_services
from shared.errors import InvalidRequest, SourceForbidden
from shared.log import get_logger
from shared.source_roots import parse_roots, resolve_within
from shared.store.videos import sources
from shared.store.videos.sources import NewSource
from shared.values.sources import Source

log = get_logger(__name__)

ROOTS_SETTING = "SCENEWORKS_SOURCE_ROOTS"


def add_source(
    name: str, folder: str | None, files: Sequence[str], watch_s: float | None, labels: Mapping[str, str]
) -> Source:
    """Store a source; its first scan is requested.

    Raises:
        SourceForbidden: a path lies outside the folders that the operator allows, or there are none.
        InvalidRequest: a path is not absolute or does not exist. Conflict: the name is taken.
    """
    if (folder is None) == (not files):
        raise InvalidRequest.at("/folder", "one_of", "Give either a folder or a list of files.")
    allowed = parse_roots(get_services().settings.source_roots)
    real_folder = None if folder is None else _resolve_path(folder, "/folder", allowed, folder=True)
    real_files = [_resolve_path(path, f"/files/{index}", allowed) for index, path in enumerate(files)]
    new = NewSource(name, real_folder, tuple(dict.fromkeys(real_files)), watch_s, dict(labels))
    source = sources.add_source(get_services().engine, new)
    log.info("source.added", source=source.id, kind=source.kind)
    return source


def request_scan(source_id: str, *, force: bool = False) -> Source:
    """Request a scan of a source, which the scanner does; NotFound.

    Args:
        source_id: which source.
        force: read files again that have not changed, and bring deleted videos back.
    """
    source = sources.request_scan(get_services().engine, source_id, force=force)
    log.info("source.scan_requested", source=source_id, force=force)
    return source


def delete_source(source_id: str) -> None:
    """Delete a source; its videos and their results stay. NotFound."""
    sources.delete_source(get_services().engine, source_id)
    log.info("source.removed", source=source_id)


def _resolve_path(path: str, pointer: str, allowed: tuple[Path, ...], *, folder: bool = False) -> str:
    """Resolve the links of a path and check it.

    Raises:
        SourceForbidden: it lies outside the folders of the operator, or there are none.
        InvalidRequest: it is not absolute, or there is no such file or folder.
    """
    if not allowed:
        raise SourceForbidden.at(pointer, "no_roots", f"The operator allows no folders: {ROOTS_SETTING} is not set.")
    if not Path(path).is_absolute():
        raise InvalidRequest.at(pointer, "not_absolute", "The path has to be absolute.")
    # Links are resolved before the comparison: a link inside an allowed folder must not lead out of it.
    resolved = resolve_within(Path(path), allowed)
    if resolved is None:
        raise SourceForbidden.at(pointer, "outside", f"This lies outside the folders that {ROOTS_SETTING} allows.")
    if not (resolved.is_dir() if folder else resolved.is_file()):
        kind = "folder" if folder else "file"
        raise InvalidRequest.at(pointer, "not_found", f"There is no such {kind} on the machine of the API.")
    return str(resolved)
