"""Scanning real folders of real films: what becomes a video, what is said of the rest, and what never happens twice."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import event, text

from api.archive.scanner import scan_next
from api.archive.scanner.scan import Fenced, Scanning
from shared.errors import SourceUnreachable
from shared.files import Files
from shared.store import sweep, videos
from shared.store.archive import sources
from shared.store.archive.sources import Looked, NewSource
from tests import factories
from tests.api.archive.scanner.conftest import Archive, touch, until

REPOSITORY = Path(__file__).resolve().parents[4]


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
