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
from shared.files import within
from shared.values.archive.schedules import Source

ENDINGS = frozenset({
    "264", "265", "3g2", "3gp", "asf", "avc", "avi", "divx", "dv", "f4v", "flv", "gxf", "h264", "h265", "hevc", "ivf",
    "m1v", "m2p", "m2t", "m2ts", "m2v", "m4v", "mkv", "mov", "mp4", "mpe", "mpeg", "mpg", "mpv", "mts", "mxf", "nsv",
    "nut", "obu", "ogm", "ogv", "qt", "rm", "rmvb", "tod", "tp", "trp", "ts", "vob", "vro", "webm", "wmv", "wtv", "y4m",
})  # fmt: skip
"""How the names of films end; what ends otherwise is passed over. A file of a list is a film whatever its name."""
NOTES = 20
"""So much of what was passed over is told by name."""


@dataclass(frozen=True, slots=True)
class Met:
    """A file that may be a film, with the size and the time of now; or why it cannot be one."""

    path: str
    size: int = 0
    mtime_ns: int = 0
    error: SceneworksError | None = None


class Walk:
    """One way through a source. Memory holds the names of one folder, and the folders still to come.

    Args:
        source: where.
        allowed: the folders of the operator, resolved.
        tick: called at each entry, also where nothing is a film: the way may be long.

    Raises:
        SourceForbidden: the folder lies outside the allowed ones.
        SourceUnreachable: it is not there, or cannot be read.
    """

    def __init__(self, source: Source, allowed: Sequence[Path], tick: Callable[[], None]) -> None:
        self.unread: set[str] = set()
        """Folders and files that could not be looked at: nobody knows what became of them."""
        self.passed_over: list[dict[str, str]] = []
        self.empty = True
        """Whether there was no file of any kind, and nothing that could not be looked at."""
        self._source, self._allowed, self._tick = source, allowed, tick
        self._identity = self._look()

    def check(self) -> None:
        """SourceUnreachable when the folder is no longer the one that it was at the start: a share was unmounted."""
        if self._look() != self._identity:
            raise SourceUnreachable("The folder was replaced while it was scanned.")

    def met(self) -> Iterator[Met]:
        """Every file that may be a film."""
        if self._source.folder is None:
            for path in self._source.files:
                yield self._listed(path)
            return
        pending = [self._source.folder]
        while pending:
            for entry in self._entries(pending.pop()):
                self._tick()
                if (found := self._sort(entry, pending)) is not None:
                    yield found

    def _look(self) -> tuple[int, int]:
        if self._source.folder is None:
            return (0, 0)
        if within(Path(self._source.folder), self._allowed) is None:
            raise SourceForbidden("The folder lies outside those that the operator allows.")
        try:
            found = Path(self._source.folder).stat()
            with os.scandir(self._source.folder):
                return (found.st_dev, found.st_ino)
        except OSError as error:
            raise SourceUnreachable(f"The folder cannot be read: {error.strerror}.") from None

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        """What is in a folder; nothing where it has gone meanwhile, or cannot be read (that is kept in mind)."""
        try:
            with os.scandir(folder) as entries:
                return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda one: one.name)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._leave(folder, folder, error)
            return []

    def _sort(self, entry: os.DirEntry[str], pending: list[str]) -> Met | None:
        """What an entry is: a folder still to come, a file that may be a film, or neither."""
        try:
            if entry.is_dir(follow_symlinks=False):
                pending.extend([entry.path] if self._can_be_named(entry) else [])
                return None
            if entry.is_symlink():
                self._note_link(entry)
                return None
            self.empty = False
            if not may_be_film(entry.name) or not entry.is_file(follow_symlinks=False) or not self._can_be_named(entry):
                return None
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._leave(str(PurePath(entry.path).parent), entry.path, error)
            return None
        return Met(entry.path, found.st_size, found.st_mtime_ns)

    def _can_be_named(self, entry: os.DirEntry[str]) -> bool:
        """The ledger holds Unicode, and a film is found again by its path."""
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            self._pass_over(entry.path, "This name is not UTF-8.")
            return False
        return True

    def _note_link(self, entry: os.DirEntry[str]) -> None:
        """Of links, those are told that may have been meant to be followed: to films, and to folders."""
        if may_be_film(entry.name) or not PurePath(entry.name).suffix:
            self._pass_over(entry.path, "This is a link: links are not followed.")

    def _listed(self, path: str) -> Met:
        self._tick()
        if within(Path(path), self._allowed) is None:
            return Met(path, error=SourceForbidden("The file lies outside the folders that the operator allows."))
        try:
            found = Path(path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return Met(path, error=SourceUnreachable("There is no such file."))
        except OSError as error:
            self._leave(path, path, error)
            return Met(path, error=SourceUnreachable(f"The file cannot be read: {error.strerror}."))
        self.empty = False
        if not stat.S_ISREG(found.st_mode):
            return Met(path, error=UnsupportedMedia("This is a link, or no ordinary file."))
        return Met(path, found.st_size, found.st_mtime_ns)

    def _leave(self, unread: str, path: str, error: OSError) -> None:
        """Keep in mind what could not be looked at. Where a file's folder lets nobody in, that is the folder."""
        self.unread.add(unread)
        self._pass_over(path, f"This cannot be read: {error.strerror}.")

    def _pass_over(self, path: str, why: str) -> None:
        self.empty = False
        if len(self.passed_over) < NOTES:
            printable = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
            self.passed_over.append({"path": printable, "detail": why})


def may_be_film(name: str) -> bool:
    """Whether a film may have such a name."""
    return PurePath(name).suffix[1:].lower() in ENDINGS
