"""Difficult cases of a scan: unmounted shares, files that are being written, links, names, permissions, long videos."""

from __future__ import annotations

import hashlib
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, event

from shared.db import create_db_engine
from shared.store.videos import sources
from tests.support.scanned_sources import ScannedSource, set_mtime
from worker.scanner import scan_next_source
from worker.scanner.digest import digest_file


def test_an_unmounted_share_changes_nothing(scanned_source: ScannedSource) -> None:
    scanned_source.put_video("a.mp4")
    scanned_source.put_video("season/b.mp4")
    scanned_source.run_scan()
    for empty in (False, True):
        scanned_source.folder.rename(scanned_source.folder.with_name("unmounted"))
        if empty:
            (scanned_source.folder / "season").mkdir(parents=True)
        report = scanned_source.run_scan()
        assert report["error"]["code"] == "source_unreachable"
        assert (report["gone"], set(scanned_source.list_states().values())) == (0, {"present"})
        if empty:
            assert scanned_source.run_scan_counts(force=True) == {"gone": 2}
            shutil.rmtree(scanned_source.folder)
        scanned_source.folder.with_name("unmounted").rename(scanned_source.folder)
    assert scanned_source.run_scan_counts() == {"unchanged": 2}
    assert set(scanned_source.list_states().values()) == {"present"}


def test_a_share_unmounted_during_a_scan_changes_nothing(scanned_source: ScannedSource) -> None:
    scanned_source.put_video("a.mp4")
    scanned_source.put_video("season/b.mp4")
    scanned_source.run_scan()
    with _before_first_file_is_opened(
        scanned_source.database, lambda: scanned_source.folder.rename(scanned_source.folder.with_name("gone"))
    ):
        report = scanned_source.run_scan()
    assert report["error"]["code"] == "source_unreachable"
    assert set(scanned_source.list_states().values()) == {"present"}


def test_a_file_deleted_during_a_scan_is_no_error(scanned_source: ScannedSource) -> None:
    scanned_source.put_video("a.mp4")
    video_path = scanned_source.put_video("b.mp4")
    with _before_first_file_is_opened(scanned_source.database, video_path.unlink):
        assert scanned_source.run_scan_counts() == {"new": 1}
    assert scanned_source.list_states() == {"a.mp4": "present"}


class _before_first_file_is_opened:  # noqa: N801
    """Call a function after the files were listed, and before the first one is opened."""

    def __init__(self, engine: Engine, action: Callable[[], object]) -> None:
        self._engine, self._action = engine, action

    def __enter__(self) -> None:
        event.listen(self._engine, "before_cursor_execute", self._on_statement)

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._on_statement)
        assert self._action is None

    def _on_statement(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        if self._action is not None and "FROM places" in statement and "places.path IN" in statement:
            action, self._action = self._action, None  # type: ignore[assignment]
            action()


def test_a_file_being_written_is_left_for_the_next_scan(scanned_source: ScannedSource) -> None:
    settled, fresh = scanned_source.put_video("a.mp4"), scanned_source.put_video("b.mp4")
    set_mtime(settled, 60)
    assert scanned_source.run_scan_counts(settle_s=30) == {"new": 1, "settling": 1}
    assert scanned_source.list_states() == {"a.mp4": "present"}
    source = sources.get_source(scanned_source.database, scanned_source.source_id)
    assert source.scan_requested_at is not None  # the next scan is automatic
    set_mtime(fresh, 60)
    assert scanned_source.run_scan_counts(settle_s=30) == {"unchanged": 1, "new": 1}
    assert sources.get_source(scanned_source.database, scanned_source.source_id).scan_requested_at is None
    scanned_source.put_video("a.mp4", tag="changed, and still being written")
    set_mtime(fresh, -86_400)  # by a clock that is a day ahead; the bytes are the same
    assert scanned_source.run_scan_counts(settle_s=30) == {"unchanged": 1, "settling": 1}
    assert scanned_source.list_states() == {"a.mp4": "present", "b.mp4": "present"}


def test_a_file_that_changes_while_it_is_read_has_no_hash(tmp_path: Path) -> None:
    video_path = tmp_path / "a.mp4"
    video_path.write_bytes(bytes(3 << 20))
    digest = digest_file(video_path, lambda _: None)
    assert digest is not None
    assert (digest.sha256, digest.size) == (hashlib.sha256(bytes(3 << 20)).hexdigest(), 3 << 20)

    def append(_: int) -> None:
        with video_path.open("ab") as file:
            file.write(b"x")

    assert digest_file(video_path, append) is None
    copy = tmp_path / "copy"
    copy.write_bytes(video_path.read_bytes())
    assert digest_file(video_path, lambda _: copy.exists() and copy.replace(video_path)) is None


def test_progress_is_reported_while_a_long_file_is_hashed(scanned_source: ScannedSource) -> None:
    with (scanned_source.folder / "long.mp4").open("wb") as file:
        file.truncate(300 << 20)
    scanned_source.settings = {"lease_s": 0.03}
    committed: list[int] = []

    def note_progress(*_: object) -> None:
        """What others can read before each step of the scan is committed."""
        committed.append(sources.get_source(other, scanned_source.source_id).scan.get("bytes_hashed", 0))

    other = create_db_engine(scanned_source.database.url.render_as_string(hide_password=False))
    event.listen(scanned_source.database, "commit", note_progress)
    try:
        assert scan_next_source(scanned_source.database, scanned_source.config, "scanner-1")
    finally:
        event.remove(scanned_source.database, "commit", note_progress)
        other.dispose()
    assert [size for size in committed if 0 < size < 300 << 20]
    assert scanned_source.list_states() == {"long.mp4": "refused"}


def test_hashing_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    with (tmp_path / "long.mp4").open("wb") as file:
        file.truncate(200 << 20)
    tracemalloc.start()
    try:
        assert digest_file(tmp_path / "long.mp4", lambda _: None)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_links_are_not_followed(scanned_source: ScannedSource) -> None:
    video_path = scanned_source.put_video("season/a.mp4")
    outside = scanned_source.folder.parent / "outside"
    outside.mkdir()
    (outside / "secret.mp4").write_bytes(video_path.read_bytes() + b"secret")
    (scanned_source.folder / "season" / "circle").symlink_to(scanned_source.folder)
    (scanned_source.folder / "outside").symlink_to(outside)
    (scanned_source.folder / "secret.mp4").symlink_to(outside / "secret.mp4")
    (scanned_source.folder / "again.mp4").symlink_to(video_path)
    (scanned_source.folder / "nowhere.mp4").symlink_to(scanned_source.folder / "nowhere.mp4")
    os.mkfifo(scanned_source.folder / "pipe.mp4")
    report = scanned_source.run_scan()
    assert (report["found"], report["new"]) == (1, 1)
    passed = {os.path.relpath(entry["path"], scanned_source.folder) for entry in report["passed_over"]}
    assert passed == {"season/circle", "outside", "secret.mp4", "again.mp4", "nowhere.mp4"}
    video_path.rename(outside / "a.mp4")
    # The same bytes, size and time, but a link may later point to another file.
    video_path.symlink_to(outside / "a.mp4")
    assert scanned_source.run_scan_counts() == {"gone": 1}


def test_names_that_are_not_utf8_are_reported(scanned_source: ScannedSource) -> None:
    scanned_source.put_video("a.mp4")
    for name in (b"caf\xe9.mp4", b"caf\xe9.txt"):
        Path(os.fsdecode(os.fsencode(scanned_source.folder) + b"/" + name)).write_bytes(
            scanned_source.clip.read_bytes()
        )
    folder = Path(os.fsdecode(os.fsencode(scanned_source.folder) + b"/\xff"))
    folder.mkdir()
    shutil.copy(scanned_source.clip, folder / "b.mp4")
    report = scanned_source.run_scan()
    assert (report["found"], report["new"]) == (1, 1)
    assert [Path(entry["path"]).name for entry in report["passed_over"]] == ["caf\\xe9.mp4", "\\xff"]
    assert {entry["detail"] for entry in report["passed_over"]} == {"This name is not UTF-8."}


def test_unreadable_files_are_reported_and_tried_again(scanned_source: ScannedSource) -> None:
    locked, deleted = scanned_source.put_video("locked/a.mp4"), scanned_source.put_video("b.mp4")
    scanned_source.run_scan()
    scanned_source.put_video("c.mp4").chmod(0)
    locked.parent.chmod(0)
    deleted.unlink()
    with _as_unprivileged_user(scanned_source.folder):
        assert scanned_source.run_scan_counts() == {"refused": 1, "gone": 1}
    (skipped,) = sources.get_source(scanned_source.database, scanned_source.source_id).scan["passed_over"]
    assert skipped == {"path": str(locked.parent), "detail": "This cannot be read: Permission denied."}
    assert scanned_source.list_states() == {"b.mp4": "gone", "c.mp4": "refused", "locked/a.mp4": "present"}
    refused = scanned_source.list_files()["c.mp4"].error
    assert refused is not None
    assert (refused["code"], refused["retryable"]) == ("source_unreachable", True)
    locked.parent.chmod(0o755)
    (scanned_source.folder / "c.mp4").chmod(0o644)
    assert scanned_source.run_scan_counts() == {"unchanged": 1, "new": 1}


class _as_unprivileged_user:  # noqa: N801
    """Act as another user than root, who may read everything."""

    def __init__(self, folder: Path) -> None:
        for parent in (folder, *folder.parents):
            if parent.stat().st_uid == os.geteuid() and parent.name.startswith(
                ("films", "share", "pytest", "popen-", "test_")
            ):
                parent.chmod(0o755)

    def __enter__(self) -> None:
        self._root = os.geteuid() == 0
        if self._root:
            os.seteuid(65_534)

    def __exit__(self, *_: object) -> None:
        if self._root:
            os.seteuid(0)
