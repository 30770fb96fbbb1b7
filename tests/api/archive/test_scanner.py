"""Scanning real folders of real films: what becomes a video, what is said of the rest, and what never happens twice."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text

from api.archive.scanner import scan_next
from api.archive.scanner.reading import digest
from api.archive.scanner.scan import Fenced, Scanning
from shared.errors import SourceUnreachable
from shared.files import Files
from shared.store import sweep, videos
from shared.store.archive import sources
from shared.store.archive.sources import Looked, NewSource
from tests import factories
from tests.api.archive.scanned import Archive, archive, clip, touch, until

__all__ = ["archive", "clip"]
REPOSITORY = Path(__file__).resolve().parents[3]


def test_films_become_videos_once_and_stay_where_they_are(archive: Archive, files: Files) -> None:
    film = archive.put("a.mp4")
    archive.put("season/ü 1.MP4")
    archive.put("season/copy of a.mp4", tag="a.mp4")
    archive.put("season/.hidden.mp4")
    archive.put(".trash/b.mp4")
    (archive.folder / "notes.txt").write_text("no film", encoding="utf-8")
    (archive.folder / "module.ts").write_text("export const film = 1", encoding="utf-8")
    told = archive.scan()
    assert {kind: told[kind] for kind in ("found", "new", "refused", "gone", "error")} == {
        "found": 4, "new": 3, "refused": 1, "gone": 0, "error": None,
    }  # fmt: skip
    assert told["bytes_hashed"] == sum(path.stat().st_size for path in archive.folder.rglob("*.*4")) - sum(
        path.stat().st_size for path in (archive.folder / "season/.hidden.mp4", archive.folder / ".trash/b.mp4")
    ) + len("export const film = 1")
    assert archive.states() == {
        "a.mp4": "present", "module.ts": "refused", "season/copy of a.mp4": "present", "season/ü 1.MP4": "present",
    }  # fmt: skip
    refused = archive.places()["module.ts"].error
    assert refused is not None
    assert refused["code"] == "unsupported_media"
    first, second = sorted(archive.videos(), key=lambda video: video.name)
    assert archive.video_of("a.mp4") == archive.video_of("season/copy of a.mp4") == first.id
    assert (second.name, second.stored, second.media_type) == ("ü 1.MP4", False, "video/mp4")
    assert first.sha256 == hashlib.sha256(film.read_bytes()).hexdigest()
    assert first.video.width == 160
    assert list(files.objects(-1)) == []
    again = archive.scan()
    assert (again["unchanged"], again["bytes_hashed"]) == (4, 0)


def test_a_moved_film_keeps_its_results(archive: Archive) -> None:
    film = archive.put("a.mp4")
    archive.scan()
    job = factories.job(archive.database, archive.video_of("a.mp4"))
    film.rename(archive.folder / "b.mp4")
    archive.put("a.mp4", tag="another in its place")
    assert archive.counted() == {"changed": 1, "new": 1}
    assert archive.video_of("b.mp4") == job.video_id
    (archive.folder / "b.mp4").rename(archive.folder / "c.mp4")
    shutil.copy2(archive.folder / "c.mp4", archive.folder / "d.mp4")
    assert archive.counted() == {"unchanged": 1, "moved": 1, "new": 1}
    assert archive.states() == {"a.mp4": "present", "b.mp4": "gone", "c.mp4": "present", "d.mp4": "present"}
    assert archive.video_of("c.mp4") == archive.video_of("d.mp4") == job.video_id
    assert len(archive.videos()) == 2


def test_a_changed_file_is_another_video(archive: Archive, files: Files) -> None:
    archive.put("a.mp4", tag="one")
    archive.put("b.mp4", tag="b")
    archive.scan()
    before = videos.get(archive.database, archive.video_of("a.mp4"))
    archive.put("a.mp4", tag="two!")
    with pytest.raises(SourceUnreachable, match="has changed"):
        files.film(before.sha256, sources.where(archive.database, before.id))
    assert archive.counted() == {"changed": 1, "unchanged": 1}
    assert archive.video_of("a.mp4") != before.id
    with pytest.raises(SourceUnreachable, match="No source has this film"):
        files.film(before.sha256, sources.where(archive.database, before.id), stored=before.stored)
    touch(archive.folder / "b.mp4", 3600)  # the same bytes under another time are the same film
    assert archive.counted() == {"unchanged": 2}
    assert len(archive.videos()) == 3


def test_a_film_that_has_gone_comes_back(archive: Archive) -> None:
    archive.put("a.mp4")
    film = archive.put("b.mp4")
    archive.scan()
    video_id = archive.video_of("b.mp4")
    film.rename(archive.folder.parent / "elsewhere.mp4")
    assert archive.counted() == {"unchanged": 1, "gone": 1}
    assert archive.states() == {"a.mp4": "present", "b.mp4": "gone"}
    assert [place.state for place in sources.where(archive.database, video_id)] == ["gone"]
    assert archive.counted() == {"unchanged": 1}
    (archive.folder.parent / "elsewhere.mp4").rename(film)
    assert archive.scan()["bytes_hashed"] == 0
    assert archive.states()["b.mp4"] == "present"
    assert archive.video_of("b.mp4") == video_id


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


def test_limits_are_those_of_uploads(archive: Archive) -> None:
    archive.put("a.mp4")
    cut = archive.folder / "cut.mp4"
    cut.write_bytes(archive.clip.read_bytes()[:-2000])
    assert archive.counted(max_video_s=0.5) == {"refused": 2}
    errors = {path: place.error["code"] for path, place in archive.places().items() if place.error}
    assert errors == {"a.mp4": "video_too_long", "cut.mp4": "media_corrupt"}
    assert archive.counted() == {"unchanged": 2}  # lasts until the file changes
    assert archive.counted(force=True) == {"new": 1, "refused": 1}


def test_a_film_deleted_on_purpose_stays_away(archive: Archive) -> None:
    film = archive.put("a.mp4")
    archive.scan()
    videos.delete(archive.database, archive.video_of("a.mp4"))
    assert film.exists()
    touch(film, 3600)
    archive.scan()
    film.rename(archive.folder / "b.mp4")
    shutil.copy2(archive.folder / "b.mp4", archive.folder / "c.mp4")
    assert archive.counted() == {"moved": 1, "new": 1}
    assert archive.videos() == []
    assert [place.video_id for place in archive.places().values()] == [None] * 3
    assert archive.states() == {"a.mp4": "gone", "b.mp4": "present", "c.mp4": "present"}
    assert archive.counted(force=True) == {"unchanged": 2}
    (video,) = archive.videos()
    assert archive.video_of("b.mp4") == archive.video_of("c.mp4") == video.id
    videos.delete(archive.database, video.id)
    uploaded = factories.stored(archive.database, video.sha256)
    archive.scan()
    assert archive.video_of("b.mp4") == uploaded.id  # known again by another way: it lies here too
    archive.put("c.mp4", tag="changed")
    assert archive.counted() == {"unchanged": 1, "changed": 1}


def test_tidying_leaves_films_in_sources_alone(archive: Archive, files: Files, tmp_path: Path) -> None:
    film = archive.put("a.mp4")
    archive.scan()
    (video,) = archive.videos()
    nobodys = tmp_path / "nobodys"
    nobodys.write_bytes(b"of no video")
    orphan = files.put(nobodys).sha256
    assert sweep.unreferenced(archive.database, files.objects(-1)) == [orphan]
    assert sweep.unreferenced(archive.database, [video.sha256, orphan]) == [orphan]
    sweep.tidy(archive.database)
    assert archive.videos() == [video]
    files.put(film)  # uploaded too, and deleted: the copy in the store goes, the film does not
    videos.delete(archive.database, video.id)
    for sha256 in sweep.unreferenced(archive.database, files.objects(-1)):
        files.remove(sha256)
    assert list(files.objects(-1)) == []
    assert film.exists()


def test_a_list_of_files(archive: Archive) -> None:
    folder = archive.folder
    film = archive.put("a film")  # of a list, whatever its name
    (folder / "link.mp4").symlink_to(film)
    paths = [film, folder / "link.mp4", folder / "none.mp4", folder.parent.parent / "outside.mp4"]
    listed = sources.add(archive.database, NewSource("list", None, tuple(map(str, paths))))
    sources.remove(archive.database, archive.source_id)
    archive.source_id = listed.id
    assert archive.counted() == {"new": 1, "refused": 3}
    codes = {path: place.error and place.error["code"] for path, place in archive.places().items()}
    assert codes == {
        "a film": None, "link.mp4": "unsupported_media", "none.mp4": "source_unreachable",
        "../../outside.mp4": "source_forbidden",
    }  # fmt: skip
    shutil.copy(archive.clip, folder / "none.mp4")
    film.rename(folder / "elsewhere")
    assert archive.counted() == {"new": 1, "refused": 2, "gone": 1}
    (folder / "none.mp4").unlink()
    (folder / "link.mp4").unlink()
    assert archive.scan()["error"]["code"] == "source_unreachable"
    assert archive.states()["none.mp4"] == "present"


def test_only_where_the_operator_allows_it(archive: Archive, tmp_path: Path) -> None:
    archive.put("a.mp4")
    archive.scan()
    for allowed in ("", str(tmp_path / "other"), str(archive.folder / "deeper")):
        assert archive.scan(archive_roots=allowed)["error"]["code"] == "source_forbidden"
    outside = tmp_path / "outside"
    archive.folder.rename(outside)
    archive.folder.symlink_to(outside)
    assert archive.scan()["error"]["code"] == "source_forbidden"
    assert archive.states() == {"a.mp4": "present"}


def test_a_watched_source_is_scanned_again_by_itself(archive: Archive) -> None:
    watched = sources.add(archive.database, NewSource("watched", str(archive.folder), watch_s=0.3))
    sources.remove(archive.database, archive.source_id)
    archive.source_id = watched.id
    assert scan_next(archive.database, archive.config, "scanner-1")
    assert not scan_next(archive.database, archive.config, "scanner-1")
    archive.put("a.mp4")
    until(lambda: scan_next(archive.database, archive.config, "scanner-1"))
    assert archive.states() == {"a.mp4": "present"}


def test_two_scanners_share_no_source(archive: Archive) -> None:
    archive.put("a.mp4")
    first = sources.claim(archive.database, "scanner-1", 0.2)
    assert first is not None
    assert sources.claim(archive.database, "scanner-2", 30) is None
    until(lambda: scan_next(archive.database, archive.config, "scanner-2"))
    with pytest.raises(Fenced):
        Scanning(archive.database, first, archive.config).run()
    assert sources.finish(archive.database, first, {}) is None
    assert not sources.let_go(archive.database, first)
    assert archive.states() == {"a.mp4": "present"}
    assert sources.get(archive.database, archive.source_id).scan["new"] == 1
    sources.want(archive.database, archive.source_id, force=True)
    third = sources.claim(archive.database, "scanner-1", 30)
    assert third is not None
    sources.remove(archive.database, archive.source_id)
    with pytest.raises(Fenced):
        Scanning(archive.database, third, archive.config).run()


def test_a_scan_by_force_that_was_cut_off_goes_on_by_force(archive: Archive) -> None:
    sources.want(archive.database, archive.source_id, force=True)
    first = sources.claim(archive.database, "scanner-1", 30)
    assert first is not None
    assert sources.let_go(archive.database, first)
    second = sources.claim(archive.database, "scanner-2", 30)
    assert second is not None
    assert second.forced
    sources.want(archive.database, archive.source_id)
    assert sources.finish(archive.database, second, {}) is not None
    third = sources.claim(archive.database, "scanner-1", 30)
    assert third is not None
    assert sources.finish(archive.database, third, {}) is not None
    sources.want(archive.database, archive.source_id)
    fourth = sources.claim(archive.database, "scanner-1", 30)
    assert fourth is not None
    assert not fourth.forced


def test_thousands_of_files_are_a_few_statements(archive: Archive) -> None:
    film = archive.put("film 0.mp4")
    for number in range(1, 600):
        (archive.folder / f"film {number}.mp4").hardlink_to(film)
    facts, now = factories.video(), film.stat()
    names = [f"{archive.folder}/film {number}.mp4" for number in range(600)]
    scan = sources.claim(archive.database, "scanner-1", 30)
    assert scan is not None
    looked = [Looked(name, now.st_size, now.st_mtime_ns, "a" * 64, "film.mp4", facts) for name in names]
    assert sources.seen(archive.database, scan, looked, {}, 30)
    assert sources.finish(archive.database, scan, {}) is not None
    statements: list[str] = []
    event.listen(archive.database, "before_cursor_execute", lambda *seen: statements.append(seen[2]))
    assert archive.counted() == {"unchanged": 600}
    assert len(statements) < 40
    assert archive.states() == dict.fromkeys((f"film {number}.mp4" for number in range(600)), "present")


def test_killed_and_stopped_the_process_goes_on_and_does_nothing_twice(archive: Archive, tmp_path: Path) -> None:
    for number in range(10):
        archive.put(f"{number:02}.mp4")
    env = os.environ | {
        "DATABASE_URL": archive.database.url.render_as_string(hide_password=False).replace("+psycopg", ""),
        "SCENEWORKS_ARCHIVE_ROOTS": str(tmp_path),
        "SCENEWORKS_SETTLE_S": "0",
        "SCENEWORKS_LEASE_S": "0.5",
        "SCENEWORKS_PROBE_TIMEOUT_S": "3",
    }

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "api.archive.scanner"]
        return subprocess.Popen(command, cwd=REPOSITORY, env=env, stderr=subprocess.PIPE, text=True)

    with start() as first, start() as second, start() as third:
        until(lambda: len(archive.places()) >= 2, 30)
        scanners = {scanner.pid: scanner for scanner in (first, second, third)}
        killed = scanners.pop(_owner(archive))
        killed.kill()
        killed.wait()
        known = archive.places()
        until(lambda: len(archive.places()) >= len(known) + 2)
        stopped = scanners.pop(_owner(archive))
        stopped.terminate()
        said = stopped.communicate(timeout=10)[1]
        assert len(archive.places()) < 10
        until(lambda: sources.get(archive.database, archive.source_id).scanned_at is not None)
        (last,) = scanners.values()
        last.send_signal(signal.SIGINT)
        said_last = last.communicate(timeout=10)[1]
    assert (stopped.returncode, last.returncode) == (0, 0)
    assert _actions(said)[-2:] == ["scan.let_go", "scanner.stopped"]
    assert _actions(said_last) == ["scanner.started", "scan.claimed", "scan.done", "scanner.stopped"]
    told = sources.get(archive.database, archive.source_id).scan
    assert (told["found"], told["new"] + told["unchanged"], told["error"]) == (10, 10, None)
    assert told["unchanged"] >= len(known) + 2
    assert len(archive.videos()) == 10
    assert {path: archive.video_of(path) for path in known} == {path: place.video_id for path, place in known.items()}


def _owner(archive: Archive) -> int:
    """Process id of the scanner that has the source."""
    with archive.database.connect() as connection:
        return int(connection.execute(text("SELECT owner FROM sources")).scalar_one().rpartition("-")[2])


def _actions(said: str) -> list[str]:
    lines = [json.loads(line) for line in said.splitlines()]
    assert {line["level"] for line in lines} == {"info"}, said
    return [line["action"] for line in lines]
