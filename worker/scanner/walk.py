"""What lies in a source: the files that may be films, met one by one, and what could not be looked at.

A folder is read with all that is below it, names that begin with a dot left out. Links are not followed: what they lead
to inside the folder is met there, and what lies outside is no part of it. So there are no circles either.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from shared.errors import SceneworksError, SourceForbidden, SourceUnreachable, UnsupportedMedia
from shared.source_roots import resolve_within
from shared.values.sources import Source

VIDEO_SUFFIXES = frozenset({
    "264", "265", "3g2", "3gp", "asf", "avc", "avi", "divx", "dv", "f4v", "flv", "gxf", "h264", "h265", "hevc", "ivf",
    "m1v", "m2p", "m2t", "m2ts", "m2v", "m4v", "mkv", "mov", "mp4", "mpe", "mpeg", "mpg", "mpv", "mts", "mxf", "nsv",
    "nut", "obu", "ogm", "ogv", "qt", "rm", "rmvb", "tod", "tp", "trp", "ts", "vob", "vro", "webm", "wmv", "wtv", "y4m",
})  # fmt: skip
"""How the names of films end; what ends otherwise is passed over. A file of a list is a film whatever its name."""
MAX_SKIPPED_NAMED = 20
"""So much of what was passed over is told by name."""


@dataclass(frozen=True, slots=True)
class CandidateFile:
    """A file that may be a film, with the size and the time of now; or why it cannot be one."""

    path: str
    size: int = 0
    mtime_ns: int = 0
    error: SceneworksError | None = None


class SourceWalk:
    """One way through a source. Memory holds the names of one folder, and the folders still to come.

    Args:
        source: where.
        allowed: the folders of the operator, resolved.
        on_entry: called at each entry, also where nothing is a film: the way may be long.

    Raises:
        SourceForbidden: the folder lies outside the allowed ones.
        SourceUnreachable: it is not there, or cannot be read.
    """

    def __init__(self, source: Source, allowed: Sequence[Path], on_entry: Callable[[], None]) -> None:
        self.unreadable_paths: set[str] = set()
        """Folders and files that could not be looked at: nobody knows what became of them."""
        self.skipped_paths: list[dict[str, str]] = []
        self.is_empty = True
        """Whether there was no file of any kind, and nothing that could not be looked at."""
        self._source, self._allowed, self._on_entry = source, allowed, on_entry
        self._identity = self._identify_folder()

    def check_unchanged(self) -> None:
        """SourceUnreachable when the folder is no longer the one that it was at the start: a share was unmounted."""
        if self._identify_folder() != self._identity:
            raise SourceUnreachable("The folder was replaced while it was scanned.")

    def iter_candidates(self) -> Iterator[CandidateFile]:
        """Every file that may be a film."""
        if self._source.folder is None:
            for path in self._source.files:
                yield self._check_listed_file(path)
            return
        pending = [self._source.folder]
        while pending:
            for entry in self._list_folder(pending.pop()):
                self._on_entry()
                if (candidate := self._classify_entry(entry, pending)) is not None:
                    yield candidate

    def _identify_folder(self) -> tuple[int, int]:
        if self._source.folder is None:
            return (0, 0)
        if resolve_within(Path(self._source.folder), self._allowed) is None:
            raise SourceForbidden("The folder lies outside those that the operator allows.")
        try:
            folder_stat = Path(self._source.folder).stat()
            with os.scandir(self._source.folder):
                return (folder_stat.st_dev, folder_stat.st_ino)
        except OSError as error:
            raise SourceUnreachable(f"The folder cannot be read: {error.strerror}.") from None

    def _list_folder(self, folder: str) -> list[os.DirEntry[str]]:
        """What is in a folder; nothing where it has gone meanwhile, or cannot be read (that is kept in mind)."""
        try:
            with os.scandir(folder) as entries:
                return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda one: one.name)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._note_unreadable(folder, folder, error)
            return []

    def _classify_entry(self, entry: os.DirEntry[str], pending: list[str]) -> CandidateFile | None:
        """What an entry is: a folder still to come, a file that may be a film, or neither."""
        try:
            if entry.is_dir(follow_symlinks=False):
                pending.extend([entry.path] if self._has_valid_name(entry) else [])
                return None
            if entry.is_symlink():
                self._record_link(entry)
                return None
            self.is_empty = False
            if (
                not has_video_suffix(entry.name)
                or not entry.is_file(follow_symlinks=False)
                or not self._has_valid_name(entry)
            ):
                return None
            file_stat = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._note_unreadable(str(PurePath(entry.path).parent), entry.path, error)
            return None
        return CandidateFile(entry.path, file_stat.st_size, file_stat.st_mtime_ns)

    def _has_valid_name(self, entry: os.DirEntry[str]) -> bool:
        """The ledger holds Unicode, and a film is found again by its path."""
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            self._note_skipped(entry.path, "This name is not UTF-8.")
            return False
        return True

    def _record_link(self, entry: os.DirEntry[str]) -> None:
        """Of links, those are told that may have been meant to be followed: to films, and to folders."""
        if has_video_suffix(entry.name) or not PurePath(entry.name).suffix:
            self._note_skipped(entry.path, "This is a link: links are not followed.")

    def _check_listed_file(self, path: str) -> CandidateFile:
        self._on_entry()
        if resolve_within(Path(path), self._allowed) is None:
            return CandidateFile(
                path, error=SourceForbidden("The file lies outside the folders that the operator allows.")
            )
        try:
            file_stat = Path(path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return CandidateFile(path, error=SourceUnreachable("There is no such file."))
        except OSError as error:
            self._note_unreadable(path, path, error)
            return CandidateFile(path, error=SourceUnreachable(f"The file cannot be read: {error.strerror}."))
        self.is_empty = False
        if not stat.S_ISREG(file_stat.st_mode):
            return CandidateFile(path, error=UnsupportedMedia("This is a link, or no ordinary file."))
        return CandidateFile(path, file_stat.st_size, file_stat.st_mtime_ns)

    def _note_unreadable(self, unreadable_path: str, path: str, error: OSError) -> None:
        """Keep in mind what could not be looked at. Where a file's folder lets nobody in, that is the folder."""
        self.unreadable_paths.add(unreadable_path)
        self._note_skipped(path, f"This cannot be read: {error.strerror}.")

    def _note_skipped(self, path: str, reason: str) -> None:
        self.is_empty = False
        if len(self.skipped_paths) < MAX_SKIPPED_NAMED:
            printable = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
            self.skipped_paths.append({"path": printable, "detail": reason})


def has_video_suffix(name: str) -> bool:
    """Whether a film may have such a name."""
    return PurePath(name).suffix[1:].lower() in VIDEO_SUFFIXES
