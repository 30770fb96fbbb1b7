"""Scan real folders of real videos: which files become videos, how the others are reported, and what happens once."""

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

from shared.errors import SourceUnreachable
from shared.storage import ContentStorage
from shared.store.runs import sweep
from shared.store.videos import sources, videos
from shared.store.videos.sources import NewSource, ScannedFile
from tests.support import factories
from tests.support.scanned_sources import ScannedSource, set_mtime
from tests.support.waiting import wait_until
from worker.scanner import scan_next_source
from worker.scanner.scan import ScanFenced, SourceScanner

REPOSITORY = Path(__file__).resolve().parents[3]


def test_files_become_videos_once_and_stay_where_they_are(scanned_source: ScannedSource, files: ContentStorage) -> None:
    video_path = scanned_source.put_video("a.mp4")
    scanned_source.put_video("season/ü 1.MP4")
    scanned_source.put_video("season/copy of a.mp4", tag="a.mp4")
    scanned_source.put_video("season/.hidden.mp4")
    scanned_source.put_video(".trash/b.mp4")
    (scanned_source.folder / "notes.txt").write_text("no video", encoding="utf-8")
    (scanned_source.folder / "module.ts").write_text("export const video = 1", encoding="utf-8")
    report = scanned_source.run_scan()
    assert {kind: report[kind] for kind in ("found", "new", "refused", "gone", "error")} == {
        "found": 4, "new": 3, "refused": 1, "gone": 0, "error": None,
    }  # fmt: skip
    assert report["bytes_hashed"] == sum(path.stat().st_size for path in scanned_source.folder.rglob("*.*4")) - sum(
        path.stat().st_size
        for path in (scanned_source.folder / "season/.hidden.mp4", scanned_source.folder / ".trash/b.mp4")
    ) + len("export const video = 1")
    assert scanned_source.list_states() == {
        "a.mp4": "present", "module.ts": "refused", "season/copy of a.mp4": "present", "season/ü 1.MP4": "present",
    }  # fmt: skip
    refused = scanned_source.list_files()["module.ts"].error
    assert refused is not None
    assert refused["code"] == "unsupported_media"
    first, second = sorted(scanned_source.list_videos(), key=lambda video: video.name)
    assert scanned_source.get_video_id("a.mp4") == scanned_source.get_video_id("season/copy of a.mp4") == first.id
    assert (second.name, second.stored, second.media_type) == ("ü 1.MP4", False, "video/mp4")
    assert first.sha256 == hashlib.sha256(video_path.read_bytes()).hexdigest()
    assert first.facts.width == 160
    assert list(files.list_hashes(-1)) == []
    again = scanned_source.run_scan()
    assert (again["unchanged"], again["bytes_hashed"]) == (4, 0)


def test_a_moved_file_keeps_its_results(scanned_source: ScannedSource) -> None:
    video_path = scanned_source.put_video("a.mp4")
    scanned_source.run_scan()
    job = factories.create_job(scanned_source.database, scanned_source.get_video_id("a.mp4"))
    video_path.rename(scanned_source.folder / "b.mp4")
    scanned_source.put_video("a.mp4", tag="another in its place")
    assert scanned_source.run_scan_counts() == {"changed": 1, "new": 1}
    assert scanned_source.get_video_id("b.mp4") == job.video_id
    (scanned_source.folder / "b.mp4").rename(scanned_source.folder / "c.mp4")
    shutil.copy2(scanned_source.folder / "c.mp4", scanned_source.folder / "d.mp4")
    assert scanned_source.run_scan_counts() == {"unchanged": 1, "moved": 1, "new": 1}
    assert scanned_source.list_states() == {"a.mp4": "present", "b.mp4": "gone", "c.mp4": "present", "d.mp4": "present"}
    assert scanned_source.get_video_id("c.mp4") == scanned_source.get_video_id("d.mp4") == job.video_id
    assert len(scanned_source.list_videos()) == 2


def test_a_changed_file_is_another_video(scanned_source: ScannedSource, files: ContentStorage) -> None:
    scanned_source.put_video("a.mp4", tag="one")
    scanned_source.put_video("b.mp4", tag="b")
    scanned_source.run_scan()
    before = videos.get_video(scanned_source.database, scanned_source.get_video_id("a.mp4"))
    scanned_source.put_video("a.mp4", tag="two!")
    with pytest.raises(SourceUnreachable, match="has changed"):
        files.locate_video(before.sha256, sources.find_video_files(scanned_source.database, before.id))
    assert scanned_source.run_scan_counts() == {"changed": 1, "unchanged": 1}
    assert scanned_source.get_video_id("a.mp4") != before.id
    with pytest.raises(SourceUnreachable, match="No source has this"):
        files.locate_video(
            before.sha256, sources.find_video_files(scanned_source.database, before.id), stored=before.stored
        )
    set_mtime(scanned_source.folder / "b.mp4", 3600)  # the same bytes with another time are the same video
    assert scanned_source.run_scan_counts() == {"unchanged": 2}
    assert len(scanned_source.list_videos()) == 3


def test_a_file_that_was_gone_comes_back(scanned_source: ScannedSource) -> None:
    scanned_source.put_video("a.mp4")
    video_path = scanned_source.put_video("b.mp4")
    scanned_source.run_scan()
    video_id = scanned_source.get_video_id("b.mp4")
    video_path.rename(scanned_source.folder.parent / "elsewhere.mp4")
    assert scanned_source.run_scan_counts() == {"unchanged": 1, "gone": 1}
    assert scanned_source.list_states() == {"a.mp4": "present", "b.mp4": "gone"}
    assert [file.state for file in sources.find_video_files(scanned_source.database, video_id)] == ["gone"]
    assert scanned_source.run_scan_counts() == {"unchanged": 1}
    (scanned_source.folder.parent / "elsewhere.mp4").rename(video_path)
    assert scanned_source.run_scan()["bytes_hashed"] == 0
    assert scanned_source.list_states()["b.mp4"] == "present"
    assert scanned_source.get_video_id("b.mp4") == video_id


def test_limits_are_those_of_uploads(scanned_source: ScannedSource) -> None:
    scanned_source.put_video("a.mp4")
    cut = scanned_source.folder / "cut.mp4"
    cut.write_bytes(scanned_source.clip.read_bytes()[:-2000])
    assert scanned_source.run_scan_counts(max_video_s=0.5) == {"refused": 2}
    errors = {path: file.error["code"] for path, file in scanned_source.list_files().items() if file.error}
    assert errors == {"a.mp4": "video_too_long", "cut.mp4": "media_corrupt"}
    assert scanned_source.run_scan_counts() == {"unchanged": 2}  # lasts until the file changes
    assert scanned_source.run_scan_counts(force=True) == {"new": 1, "refused": 1}


def test_a_video_deleted_on_purpose_is_not_registered_again(scanned_source: ScannedSource) -> None:
    video_path = scanned_source.put_video("a.mp4")
    scanned_source.run_scan()
    videos.delete_video(scanned_source.database, scanned_source.get_video_id("a.mp4"))
    assert video_path.exists()
    set_mtime(video_path, 3600)
    scanned_source.run_scan()
    video_path.rename(scanned_source.folder / "b.mp4")
    shutil.copy2(scanned_source.folder / "b.mp4", scanned_source.folder / "c.mp4")
    assert scanned_source.run_scan_counts() == {"moved": 1, "new": 1}
    assert scanned_source.list_videos() == []
    assert [file.video_id for file in scanned_source.list_files().values()] == [None] * 3
    assert scanned_source.list_states() == {"a.mp4": "gone", "b.mp4": "present", "c.mp4": "present"}
    assert scanned_source.run_scan_counts(force=True) == {"unchanged": 2}
    (video,) = scanned_source.list_videos()
    assert scanned_source.get_video_id("b.mp4") == scanned_source.get_video_id("c.mp4") == video.id
    videos.delete_video(scanned_source.database, video.id)
    uploaded = factories.add_video(scanned_source.database, video.sha256)
    scanned_source.run_scan()
    assert scanned_source.get_video_id("b.mp4") == uploaded.id  # registered by an upload: the file is a copy of it
    scanned_source.put_video("c.mp4", tag="changed")
    assert scanned_source.run_scan_counts() == {"unchanged": 1, "changed": 1}


def test_cleanup_does_not_touch_files_of_sources(
    scanned_source: ScannedSource, files: ContentStorage, tmp_path: Path
) -> None:
    video_path = scanned_source.put_video("a.mp4")
    scanned_source.run_scan()
    (video,) = scanned_source.list_videos()
    unreferenced = tmp_path / "unreferenced"
    unreferenced.write_bytes(b"of no video")
    orphan = files.put_file(unreferenced).sha256
    assert sweep.find_unreferenced(scanned_source.database, files.list_hashes(-1)) == [orphan]
    assert sweep.find_unreferenced(scanned_source.database, [video.sha256, orphan]) == [orphan]
    sweep.delete_stale_rows(scanned_source.database)
    assert scanned_source.list_videos() == [video]
    # Uploaded too, and deleted: the copy in the store is removed, the file in the source is not.
    files.put_file(video_path)
    videos.delete_video(scanned_source.database, video.id)
    for sha256 in sweep.find_unreferenced(scanned_source.database, files.list_hashes(-1)):
        files.remove_file(sha256)
    assert list(files.list_hashes(-1)) == []
    assert video_path.exists()


def test_a_list_of_files(scanned_source: ScannedSource) -> None:
    folder = scanned_source.folder
    video_path = scanned_source.put_video("no suffix")  # a listed file may have any name
    (folder / "link.mp4").symlink_to(video_path)
    paths = [video_path, folder / "link.mp4", folder / "none.mp4", folder.parent.parent / "outside.mp4"]
    listed = sources.add_source(scanned_source.database, NewSource("list", None, tuple(map(str, paths))))
    sources.delete_source(scanned_source.database, scanned_source.source_id)
    scanned_source.source_id = listed.id
    assert scanned_source.run_scan_counts() == {"new": 1, "refused": 3}
    codes = {path: file.error and file.error["code"] for path, file in scanned_source.list_files().items()}
    assert codes == {
        "no suffix": None, "link.mp4": "unsupported_media", "none.mp4": "source_unreachable",
        "../../outside.mp4": "source_forbidden",
    }  # fmt: skip
    shutil.copy(scanned_source.clip, folder / "none.mp4")
    video_path.rename(folder / "elsewhere")
    assert scanned_source.run_scan_counts() == {"new": 1, "refused": 2, "gone": 1}
    (folder / "none.mp4").unlink()
    (folder / "link.mp4").unlink()
    assert scanned_source.run_scan()["error"]["code"] == "source_unreachable"
    assert scanned_source.list_states()["none.mp4"] == "present"


def test_folders_outside_the_source_roots_are_refused(scanned_source: ScannedSource, tmp_path: Path) -> None:
    scanned_source.put_video("a.mp4")
    scanned_source.run_scan()
    for allowed in ("", str(tmp_path / "other"), str(scanned_source.folder / "deeper")):
        assert scanned_source.run_scan(source_roots=allowed)["error"]["code"] == "source_forbidden"
    outside = tmp_path / "outside"
    scanned_source.folder.rename(outside)
    scanned_source.folder.symlink_to(outside)
    assert scanned_source.run_scan()["error"]["code"] == "source_forbidden"
    assert scanned_source.list_states() == {"a.mp4": "present"}


def test_a_watched_source_is_scanned_again_by_itself(scanned_source: ScannedSource) -> None:
    watched = sources.add_source(
        scanned_source.database, NewSource("watched", str(scanned_source.folder), watch_s=3600)
    )
    sources.delete_source(scanned_source.database, scanned_source.source_id)
    scanned_source.source_id = watched.id
    assert scan_next_source(scanned_source.database, scanned_source.config, "scanner-1")
    assert not scan_next_source(scanned_source.database, scanned_source.config, "scanner-1")
    scanned_source.put_video("a.mp4")
    _set_back(scanned_source, "scanned_at")
    assert scan_next_source(scanned_source.database, scanned_source.config, "scanner-1")
    assert scanned_source.list_states() == {"a.mp4": "present"}


def test_two_scanners_share_no_source(scanned_source: ScannedSource) -> None:
    scanned_source.put_video("a.mp4")
    first = sources.claim_scan(scanned_source.database, "scanner-1", 3600)
    assert first is not None
    assert sources.claim_scan(scanned_source.database, "scanner-2", 30) is None
    _set_back(scanned_source, "lease_until")
    assert scan_next_source(scanned_source.database, scanned_source.config, "scanner-2")
    with pytest.raises(ScanFenced):
        SourceScanner(scanned_source.database, first, scanned_source.config).run_scan()
    assert sources.finish_scan(scanned_source.database, first, {}) is None
    assert not sources.release_scan(scanned_source.database, first)
    assert scanned_source.list_states() == {"a.mp4": "present"}
    assert sources.get_source(scanned_source.database, scanned_source.source_id).scan["new"] == 1
    sources.request_scan(scanned_source.database, scanned_source.source_id, force=True)
    third = sources.claim_scan(scanned_source.database, "scanner-1", 30)
    assert third is not None
    sources.delete_source(scanned_source.database, scanned_source.source_id)
    with pytest.raises(ScanFenced):
        SourceScanner(scanned_source.database, third, scanned_source.config).run_scan()


def test_a_forced_scan_that_was_interrupted_stays_forced(scanned_source: ScannedSource) -> None:
    sources.request_scan(scanned_source.database, scanned_source.source_id, force=True)
    first = sources.claim_scan(scanned_source.database, "scanner-1", 30)
    assert first is not None
    assert sources.release_scan(scanned_source.database, first)
    second = sources.claim_scan(scanned_source.database, "scanner-2", 30)
    assert second is not None
    assert second.forced
    sources.request_scan(scanned_source.database, scanned_source.source_id)
    assert sources.finish_scan(scanned_source.database, second, {}) is not None
    third = sources.claim_scan(scanned_source.database, "scanner-1", 30)
    assert third is not None
    assert sources.finish_scan(scanned_source.database, third, {}) is not None
    sources.request_scan(scanned_source.database, scanned_source.source_id)
    fourth = sources.claim_scan(scanned_source.database, "scanner-1", 30)
    assert fourth is not None
    assert not fourth.forced


def test_thousands_of_files_are_a_few_statements(scanned_source: ScannedSource) -> None:
    video_path = scanned_source.put_video("video 0.mp4")
    for number in range(1, 600):
        (scanned_source.folder / f"video {number}.mp4").hardlink_to(video_path)
    facts, now = factories.make_video(), video_path.stat()
    names = [f"{scanned_source.folder}/video {number}.mp4" for number in range(600)]
    scan = sources.claim_scan(scanned_source.database, "scanner-1", 30)
    assert scan is not None
    scanned_files = [ScannedFile(name, now.st_size, now.st_mtime_ns, "a" * 64, "video.mp4", facts) for name in names]
    assert sources.record_files(scanned_source.database, scan, scanned_files, {}, 30)
    assert sources.finish_scan(scanned_source.database, scan, {}) is not None
    statements: list[str] = []
    event.listen(scanned_source.database, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    assert scanned_source.run_scan_counts() == {"unchanged": 600}
    assert len(statements) < 40
    assert scanned_source.list_states() == dict.fromkeys((f"video {number}.mp4" for number in range(600)), "present")


def test_a_scan_continues_after_kill_and_stop_and_repeats_nothing(
    scanned_source: ScannedSource, tmp_path: Path
) -> None:
    for number in range(10):
        scanned_source.put_video(f"{number:02}.mp4")

    def start() -> subprocess.Popen[str]:
        return _start_scanner(scanned_source, tmp_path)

    with start() as first, start() as second, start() as third:
        wait_until("two files are recorded", lambda: len(scanned_source.list_files()) >= 2)
        scanners = {scanner.pid: scanner for scanner in (first, second, third)}
        killed = scanners.pop(_owner(scanned_source))
        killed.kill()
        killed.wait()
        known = scanned_source.list_files()
        wait_until("another scanner continues", lambda: len(scanned_source.list_files()) >= len(known) + 2)
        stopped = scanners.pop(_owner(scanned_source))
        stopped.terminate()
        log_text = stopped.communicate(timeout=10)[1]
        assert len(scanned_source.list_files()) < 10
        wait_until("the scan ends", lambda: _is_scanned(scanned_source))
        (last,) = scanners.values()
        last.send_signal(signal.SIGINT)
        last_log = last.communicate(timeout=10)[1]
    assert (stopped.returncode, last.returncode) == (0, 0)
    assert _actions(log_text)[-2:] == ["scan.released", "scanner.stopped"]
    assert _actions(last_log) == ["scanner.started", "scan.claimed", "scan.done", "scanner.stopped"]
    report = sources.get_source(scanned_source.database, scanned_source.source_id).scan
    assert (report["found"], report["new"] + report["unchanged"], report["error"]) == (10, 10, None)
    assert report["unchanged"] >= len(known) + 2
    assert len(scanned_source.list_videos()) == 10
    assert {path: scanned_source.get_video_id(path) for path in known} == {
        path: file.video_id for path, file in known.items()
    }


def _start_scanner(scanned_source: ScannedSource, root: Path) -> subprocess.Popen[str]:
    env = os.environ | {
        "DATABASE_URL": scanned_source.database.url.render_as_string(hide_password=False).replace("+psycopg", ""),
        "SCENEWORKS_SOURCE_ROOTS": str(root),
        "SCENEWORKS_SETTLE_S": "0",
        "SCENEWORKS_LEASE_S": "0.5",
        "SCENEWORKS_PROBE_TIMEOUT_S": "3",
    }
    command = [sys.executable, "-m", "worker.scanner"]
    return subprocess.Popen(command, cwd=REPOSITORY, env=env, stderr=subprocess.PIPE, text=True)


def _set_back(scanned_source: ScannedSource, column: str) -> None:
    """Set a time of the source back by two hours: exact on a busy machine too, unlike a short wait."""
    with scanned_source.database.begin() as connection:
        connection.execute(text(f"UPDATE sources SET {column} = {column} - interval '2 hours'"))


def _is_scanned(scanned_source: ScannedSource) -> bool:
    return sources.get_source(scanned_source.database, scanned_source.source_id).scanned_at is not None


def _owner(scanned_source: ScannedSource) -> int:
    """Process id of the scanner that has the source."""
    with scanned_source.database.connect() as connection:
        return int(connection.execute(text("SELECT owner FROM sources")).scalar_one().rpartition("-")[2])


def _actions(log_text: str) -> list[str]:
    lines = [json.loads(line) for line in log_text.splitlines()]
    assert {line["level"] for line in lines} == {"info"}, log_text
    return [line["action"] for line in lines]
