"""What stands in the way of a scan: shares that go, files that are being written, links, names, rights, long films."""

from __future__ import annotations

import hashlib
import os
import shutil
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import Engine, event

from shared.store.videos import sources
from tests.worker.scanner.conftest import ScannedSource, set_mtime, wait_until
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
        told = scanned_source.run_scan()
        assert told["error"]["code"] == "source_unreachable"
        assert (told["gone"], set(scanned_source.list_states().values())) == (0, {"present"})
        if empty:
            assert scanned_source.run_scan_counts(force=True) == {"gone": 2}  # said to be so
            shutil.rmtree(scanned_source.folder)
        scanned_source.folder.with_name("unmounted").rename(scanned_source.folder)
    assert scanned_source.run_scan_counts() == {"unchanged": 2}
    assert set(scanned_source.list_states().values()) == {"present"}


def test_a_share_that_goes_away_in_mid_scan_changes_nothing(scanned_source: ScannedSource) -> None:
    scanned_source.put_video("a.mp4")
    scanned_source.put_video("season/b.mp4")
    scanned_source.run_scan()
    with _at_the_first_look(
        scanned_source.database, lambda: scanned_source.folder.rename(scanned_source.folder.with_name("gone"))
    ):
        told = scanned_source.run_scan()
    assert told["error"]["code"] == "source_unreachable"
    assert set(scanned_source.list_states().values()) == {"present"}


def test_a_file_that_vanishes_in_mid_scan_is_no_fault(scanned_source: ScannedSource) -> None:
    scanned_source.put_video("a.mp4")
    film = scanned_source.put_video("b.mp4")
    with _at_the_first_look(scanned_source.database, film.unlink):
        assert scanned_source.run_scan_counts() == {"new": 1}
    assert scanned_source.list_states() == {"a.mp4": "present"}


class _at_the_first_look:  # noqa: N801
    """Something happens on the disk after the files were listed, and before the first is opened."""

    def __init__(self, engine: Engine, happens: Callable[[], object]) -> None:
        self._engine, self._happens = engine, happens

    def __enter__(self) -> None:
        event.listen(self._engine, "before_cursor_execute", self._see)

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._see)
        assert self._happens is None

    def _see(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        if self._happens is not None and "FROM places" in statement and "places.path IN" in statement:
            happens, self._happens = self._happens, None  # type: ignore[assignment]
            happens()


def test_what_is_being_written_is_left_for_the_next_scan(scanned_source: ScannedSource) -> None:
    settled, fresh = scanned_source.put_video("a.mp4"), scanned_source.put_video("b.mp4")
    set_mtime(settled, 60)
    assert scanned_source.run_scan_counts(settle_s=30) == {"new": 1, "settling": 1}
    assert scanned_source.list_states() == {"a.mp4": "present"}
    source = sources.get_source(scanned_source.database, scanned_source.source_id)
    assert source.scan_requested_at is not None  # the next scan comes by itself
    set_mtime(fresh, 60)
    assert scanned_source.run_scan_counts(settle_s=30) == {"unchanged": 1, "new": 1}
    assert sources.get_source(scanned_source.database, scanned_source.source_id).scan_requested_at is None
    scanned_source.put_video("a.mp4", tag="changed, and still being written")
    set_mtime(fresh, -86_400)  # by a clock that is a day ahead; the bytes are the same
    assert scanned_source.run_scan_counts(settle_s=30) == {"unchanged": 1, "settling": 1}
    assert scanned_source.list_states() == {"a.mp4": "present", "b.mp4": "present"}


def test_a_file_that_changes_while_it_is_read_has_no_hash(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(bytes(3 << 20))
    found = digest_file(film, lambda _: None)
    assert found is not None
    assert (found.sha256, found.size) == (hashlib.sha256(bytes(3 << 20)).hexdigest(), 3 << 20)

    def append(_: int) -> None:
        with film.open("ab") as more:
            more.write(b"x")

    assert digest_file(film, append) is None
    (tmp_path / "new").write_bytes(film.read_bytes())
    assert digest_file(film, lambda _: (tmp_path / "new").exists() and (tmp_path / "new").replace(film)) is None


def test_how_far_it_is_is_told_while_a_long_film_is_read(scanned_source: ScannedSource) -> None:
    with (scanned_source.folder / "long.mp4").open("wb") as film:
        film.truncate(300 << 20)
    scanned_source.settings = {"lease_s": 0.03}
    with ThreadPoolExecutor(1) as other:
        scan = other.submit(scan_next_source, scanned_source.database, scanned_source.config, "scanner-1")
        wait_until(
            lambda: (
                sources.get_source(scanned_source.database, scanned_source.source_id).scan.get("bytes_hashed", 0) > 0
            )
        )
        told = sources.get_source(scanned_source.database, scanned_source.source_id).scan
        assert scan.result()
    assert 0 < told["bytes_hashed"] < 300 << 20
    assert scanned_source.list_states() == {"long.mp4": "refused"}


def test_memory_is_flat(tmp_path: Path) -> None:
    with (tmp_path / "long.mp4").open("wb") as film:
        film.truncate(200 << 20)
    tracemalloc.start()
    try:
        assert digest_file(tmp_path / "long.mp4", lambda _: None)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_links_are_not_followed(scanned_source: ScannedSource) -> None:
    film = scanned_source.put_video("season/a.mp4")
    outside = scanned_source.folder.parent / "outside"
    outside.mkdir()
    (outside / "secret.mp4").write_bytes(film.read_bytes() + b"secret")
    (scanned_source.folder / "season" / "circle").symlink_to(scanned_source.folder)
    (scanned_source.folder / "outside").symlink_to(outside)
    (scanned_source.folder / "secret.mp4").symlink_to(outside / "secret.mp4")
    (scanned_source.folder / "again.mp4").symlink_to(film)
    (scanned_source.folder / "nowhere.mp4").symlink_to(scanned_source.folder / "nowhere.mp4")
    os.mkfifo(scanned_source.folder / "pipe.mp4")
    told = scanned_source.run_scan()
    assert (told["found"], told["new"]) == (1, 1)
    passed = {os.path.relpath(one["path"], scanned_source.folder) for one in told["passed_over"]}
    assert passed == {"season/circle", "outside", "secret.mp4", "again.mp4", "nowhere.mp4"}
    film.rename(outside / "film.mp4")
    film.symlink_to(outside / "film.mp4")  # the same bytes, size and time: but a link may be turned elsewhere
    assert scanned_source.run_scan_counts() == {"gone": 1}


def test_names_that_are_not_utf8_are_said(scanned_source: ScannedSource) -> None:
    scanned_source.put_video("a.mp4")
    for name in (b"caf\xe9.mp4", b"caf\xe9.txt"):
        Path(os.fsdecode(os.fsencode(scanned_source.folder) + b"/" + name)).write_bytes(
            scanned_source.clip.read_bytes()
        )
    folder = Path(os.fsdecode(os.fsencode(scanned_source.folder) + b"/\xff"))
    folder.mkdir()
    shutil.copy(scanned_source.clip, folder / "b.mp4")
    told = scanned_source.run_scan()
    assert (told["found"], told["new"]) == (1, 1)
    assert [Path(one["path"]).name for one in told["passed_over"]] == ["caf\\xe9.mp4", "\\xff"]
    assert {one["detail"] for one in told["passed_over"]} == {"This name is not UTF-8."}


def test_what_cannot_be_read_is_said_and_tried_again(scanned_source: ScannedSource) -> None:
    locked, film = scanned_source.put_video("locked/a.mp4"), scanned_source.put_video("b.mp4")
    scanned_source.run_scan()
    scanned_source.put_video("c.mp4").chmod(0)
    locked.parent.chmod(0)
    film.unlink()
    with _as_anybody(scanned_source.folder):
        assert scanned_source.run_scan_counts() == {"refused": 1, "gone": 1}
    (told,) = sources.get_source(scanned_source.database, scanned_source.source_id).scan["passed_over"]
    assert told == {"path": str(locked.parent), "detail": "This cannot be read: Permission denied."}
    assert scanned_source.list_states() == {"b.mp4": "gone", "c.mp4": "refused", "locked/a.mp4": "present"}
    refused = scanned_source.list_files()["c.mp4"].error
    assert refused is not None
    assert (refused["code"], refused["retryable"]) == ("source_unreachable", True)
    locked.parent.chmod(0o755)
    (scanned_source.folder / "c.mp4").chmod(0o644)
    assert scanned_source.run_scan_counts() == {"unchanged": 1, "new": 1}


class _as_anybody:  # noqa: N801
    """Root may read everything: be another user for a while."""

    def __init__(self, folder: Path) -> None:
        for parent in (folder, *folder.parents):
            if parent.stat().st_uid == os.geteuid() and parent.name.startswith(("films", "share", "pytest", "test_")):
                parent.chmod(0o755)

    def __enter__(self) -> None:
        self._root = os.geteuid() == 0
        if self._root:
            os.seteuid(65_534)

    def __exit__(self, *_: object) -> None:
        if self._root:
            os.seteuid(0)
