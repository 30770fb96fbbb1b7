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

from api.archive.scanner import scan_next
from api.archive.scanner.reading import digest
from shared.store.archive import sources
from tests.api.archive.scanner.conftest import Archive, touch, until


def test_an_unmounted_share_changes_nothing(archive: Archive) -> None:
    archive.put("a.mp4")
    archive.put("season/b.mp4")
    archive.scan()
    for empty in (False, True):
        archive.folder.rename(archive.folder.with_name("unmounted"))
        if empty:
            (archive.folder / "season").mkdir(parents=True)
        told = archive.scan()
        assert told["error"]["code"] == "source_unreachable"
        assert (told["gone"], set(archive.states().values())) == (0, {"present"})
        if empty:
            assert archive.counted(force=True) == {"gone": 2}  # said to be so
            shutil.rmtree(archive.folder)
        archive.folder.with_name("unmounted").rename(archive.folder)
    assert archive.counted() == {"unchanged": 2}
    assert set(archive.states().values()) == {"present"}


def test_a_share_that_goes_away_in_mid_scan_changes_nothing(archive: Archive) -> None:
    archive.put("a.mp4")
    archive.put("season/b.mp4")
    archive.scan()
    with _at_the_first_look(archive.database, lambda: archive.folder.rename(archive.folder.with_name("gone"))):
        told = archive.scan()
    assert told["error"]["code"] == "source_unreachable"
    assert set(archive.states().values()) == {"present"}


def test_a_file_that_vanishes_in_mid_scan_is_no_fault(archive: Archive) -> None:
    archive.put("a.mp4")
    film = archive.put("b.mp4")
    with _at_the_first_look(archive.database, film.unlink):
        assert archive.counted() == {"new": 1}
    assert archive.states() == {"a.mp4": "present"}


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


def test_what_is_being_written_is_left_for_the_next_scan(archive: Archive) -> None:
    settled, fresh = archive.put("a.mp4"), archive.put("b.mp4")
    touch(settled, 60)
    assert archive.counted(settle_s=30) == {"new": 1, "settling": 1}
    assert archive.states() == {"a.mp4": "present"}
    source = sources.get(archive.database, archive.source_id)
    assert source.wanted_at is not None  # the next scan comes by itself
    touch(fresh, 60)
    assert archive.counted(settle_s=30) == {"unchanged": 1, "new": 1}
    assert sources.get(archive.database, archive.source_id).wanted_at is None
    archive.put("a.mp4", tag="changed, and still being written")
    touch(fresh, -86_400)  # by a clock that is a day ahead; the bytes are the same
    assert archive.counted(settle_s=30) == {"unchanged": 1, "settling": 1}
    assert archive.states() == {"a.mp4": "present", "b.mp4": "present"}


def test_a_file_that_changes_while_it_is_read_has_no_hash(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(bytes(3 << 20))
    found = digest(film, lambda _: None)
    assert found is not None
    assert (found.sha256, found.size) == (hashlib.sha256(bytes(3 << 20)).hexdigest(), 3 << 20)

    def append(_: int) -> None:
        with film.open("ab") as more:
            more.write(b"x")

    assert digest(film, append) is None
    (tmp_path / "new").write_bytes(film.read_bytes())
    assert digest(film, lambda _: (tmp_path / "new").exists() and (tmp_path / "new").replace(film)) is None


def test_how_far_it_is_is_told_while_a_long_film_is_read(archive: Archive) -> None:
    with (archive.folder / "long.mp4").open("wb") as film:
        film.truncate(300 << 20)
    archive.settings = {"lease_s": 0.03}
    with ThreadPoolExecutor(1) as other:
        scan = other.submit(scan_next, archive.database, archive.config, "scanner-1")
        until(lambda: sources.get(archive.database, archive.source_id).scan.get("bytes_hashed", 0) > 0)
        told = sources.get(archive.database, archive.source_id).scan
        assert scan.result()
    assert 0 < told["bytes_hashed"] < 300 << 20
    assert archive.states() == {"long.mp4": "refused"}


def test_memory_is_flat(tmp_path: Path) -> None:
    with (tmp_path / "long.mp4").open("wb") as film:
        film.truncate(200 << 20)
    tracemalloc.start()
    try:
        assert digest(tmp_path / "long.mp4", lambda _: None)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_links_are_not_followed(archive: Archive) -> None:
    film = archive.put("season/a.mp4")
    outside = archive.folder.parent / "outside"
    outside.mkdir()
    (outside / "secret.mp4").write_bytes(film.read_bytes() + b"secret")
    (archive.folder / "season" / "circle").symlink_to(archive.folder)
    (archive.folder / "outside").symlink_to(outside)
    (archive.folder / "secret.mp4").symlink_to(outside / "secret.mp4")
    (archive.folder / "again.mp4").symlink_to(film)
    (archive.folder / "nowhere.mp4").symlink_to(archive.folder / "nowhere.mp4")
    os.mkfifo(archive.folder / "pipe.mp4")
    told = archive.scan()
    assert (told["found"], told["new"]) == (1, 1)
    passed = {os.path.relpath(one["path"], archive.folder) for one in told["passed_over"]}
    assert passed == {"season/circle", "outside", "secret.mp4", "again.mp4", "nowhere.mp4"}
    film.rename(outside / "film.mp4")
    film.symlink_to(outside / "film.mp4")  # the same bytes, size and time: but a link may be turned elsewhere
    assert archive.counted() == {"gone": 1}


def test_names_that_are_not_utf8_are_said(archive: Archive) -> None:
    archive.put("a.mp4")
    for name in (b"caf\xe9.mp4", b"caf\xe9.txt"):
        Path(os.fsdecode(os.fsencode(archive.folder) + b"/" + name)).write_bytes(archive.clip.read_bytes())
    folder = Path(os.fsdecode(os.fsencode(archive.folder) + b"/\xff"))
    folder.mkdir()
    shutil.copy(archive.clip, folder / "b.mp4")
    told = archive.scan()
    assert (told["found"], told["new"]) == (1, 1)
    assert [Path(one["path"]).name for one in told["passed_over"]] == ["caf\\xe9.mp4", "\\xff"]
    assert {one["detail"] for one in told["passed_over"]} == {"This name is not UTF-8."}


def test_what_cannot_be_read_is_said_and_tried_again(archive: Archive) -> None:
    locked, film = archive.put("locked/a.mp4"), archive.put("b.mp4")
    archive.scan()
    archive.put("c.mp4").chmod(0)
    locked.parent.chmod(0)
    film.unlink()
    with _as_anybody(archive.folder):
        assert archive.counted() == {"refused": 1, "gone": 1}
    (told,) = sources.get(archive.database, archive.source_id).scan["passed_over"]
    assert told == {"path": str(locked.parent), "detail": "This cannot be read: Permission denied."}
    assert archive.states() == {"b.mp4": "gone", "c.mp4": "refused", "locked/a.mp4": "present"}
    refused = archive.places()["c.mp4"].error
    assert refused is not None
    assert (refused["code"], refused["retryable"]) == ("source_unreachable", True)
    locked.parent.chmod(0o755)
    (archive.folder / "c.mp4").chmod(0o644)
    assert archive.counted() == {"unchanged": 1, "new": 1}


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
