"""Walk through a source: yield the files that may be videos, and collect what could not be read.

A folder is read with all its subfolders, except names that begin with a dot. Links are not followed: their targets
inside the folder are found anyway, and targets outside are not part of the source. So there are no cycles either.
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
"""Suffixes of video files; other files in a folder are ignored. A listed file may have any name."""
MAX_SKIPPED_NAMED = 20
"""Largest number of skipped entries that the report lists by name."""


@dataclass(frozen=True, slots=True)
class CandidateFile:
    """A file that may be a video, with its current size and modification time; or the reason why it cannot be one."""

    path: str
    size: int = 0
    mtime_ns: int = 0
    error: SceneworksError | None = None


class SourceWalk:
    """One walk through a source. Memory holds the names of one folder, and the folders still to be read.

    Args:
        source: the source.
        allowed: the source roots of the operator, resolved.
        on_entry: called for each entry, videos or not: a walk may find no video for a long time.

    Raises:
        SourceForbidden: the folder is outside the source roots.
        SourceUnreachable: it does not exist, or cannot be read.
    """

    def __init__(self, source: Source, allowed: Sequence[Path], on_entry: Callable[[], None]) -> None:
        self.unreadable_paths: set[str] = set()
        """Folders and files that could not be read: known files below them must not be marked as gone."""
        self.skipped_paths: list[dict[str, str]] = []
        self.is_empty = True
        """Whether no file of any kind was found, and everything could be read."""
        self._source, self._allowed, self._on_entry = source, allowed, on_entry
        self._identity = self._identify_folder()

    def check_unchanged(self) -> None:
        """SourceUnreachable if the folder was replaced since the start: a share was unmounted or mounted."""
        if self._identify_folder() != self._identity:
            raise SourceUnreachable("The folder was replaced while it was scanned.")

    def iter_candidates(self) -> Iterator[CandidateFile]:
        """Yield every file that may be a video."""
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
        """(device, inode) of the folder: they change when a share is mounted or unmounted at its path."""
        if self._source.folder is None:
            return (0, 0)  # a list has no folder that could be replaced
        if resolve_within(Path(self._source.folder), self._allowed) is None:
            raise SourceForbidden("The folder lies outside those that the operator allows.")
        try:
            folder_stat = Path(self._source.folder).stat()
            with os.scandir(self._source.folder):
                return (folder_stat.st_dev, folder_stat.st_ino)
        except OSError as error:
            raise SourceUnreachable(f"The folder cannot be read: {error.strerror}.") from None

    def _list_folder(self, folder: str) -> list[os.DirEntry[str]]:
        """List a folder, sorted; empty if it is gone, or cannot be read (then it is added to `unreadable_paths`)."""
        try:
            with os.scandir(folder) as entries:
                visible = (entry for entry in entries if not entry.name.startswith("."))
                return sorted(visible, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._note_unreadable(folder, folder, error)
            return []

    def _classify_entry(self, entry: os.DirEntry[str], pending: list[str]) -> CandidateFile | None:
        """Classify an entry: a folder (added to `pending`), a file that may be a video (returned), or neither."""
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
        """Whether the name is UTF-8: the database holds Unicode, and a video is located by its path."""
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            self._note_skipped(entry.path, "This name is not UTF-8.")
            return False
        return True

    def _record_link(self, entry: os.DirEntry[str]) -> None:
        """Report a link that may have been meant to be followed: to a video, or to a folder."""
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
        """Remember what could not be read: for a file in a folder without permission, that folder."""
        self.unreadable_paths.add(unreadable_path)
        self._note_skipped(path, f"This cannot be read: {error.strerror}.")

    def _note_skipped(self, path: str, reason: str) -> None:
        self.is_empty = False
        if len(self.skipped_paths) < MAX_SKIPPED_NAMED:
            printable = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
            self.skipped_paths.append({"path": printable, "detail": reason})


def has_video_suffix(name: str) -> bool:
    """Whether the name has the suffix of a video file."""
    return PurePath(name).suffix[1:].lower() in VIDEO_SUFFIXES
