"""The commands for sources, batches, schedules and queues against a real gunicorn: output and exit codes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from api.client import sse
from api.client.commands import app, sources as source_commands
from shared.errors import SourceUnreachable
from shared.store.jobs import jobs
from shared.store.jobs.jobs import NewJob
from shared.store.runs import queues
from shared.store.videos import sources
from shared.store.videos.sources import ScanClaim
from tests.api.conftest import ApiServer
from tests.support import factories
from tests.support.batches import add_videos, announce_without_weights, dispatch_batch, finish_runs


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that the operator of the served API allows."""
    folder = tmp_path_factory.mktemp("films [HD]")
    os.environ["SCENEWORKS_SOURCE_ROOTS"] = str(folder)
    yield folder
    del os.environ["SCENEWORKS_SOURCE_ROOTS"]


def run(server: ApiServer, *arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["--url", server.url, *arguments])
    assert done.exit_code == code, done.output
    return done


def run_json(server: ApiServer, *arguments: str) -> Any:
    return json.loads(run(server, *arguments, "--json").stdout)


@contextmanager
def running_scanner(server: ApiServer, folder: Path, *, fails: bool = False) -> Iterator[None]:
    """Do every scan that is requested inside the block."""
    stopped = threading.Event()

    def serve() -> None:
        while not stopped.wait(0.02):
            if (scan := sources.claim_scan(server.database, "scanner", 30)) is not None:
                finish_scan(server, scan, folder, fails=fails)

    scanner = threading.Thread(target=serve)
    scanner.start()
    try:
        yield
    finally:
        stopped.set()
        scanner.join()


def finish_scan(server: ApiServer, scan: ScanClaim, folder: Path, *, fails: bool) -> None:
    """Record one file, or the failure of the scan."""
    if fails:
        sources.fail_scan(server.database, scan, {"error": SourceUnreachable("The folder is empty.").to_problem()})
        return
    file = sources.ScannedFile(
        path=f"{folder}/a [x264].mp4", size=7, mtime_ns=1, sha256="a" * 64, facts=factories.make_video(), name="a.mp4"
    )  # fmt: skip
    assert sources.record_files(server.database, scan, [file], {}, 30)
    sources.finish_scan(server.database, scan, {})


def test_source(api_server: ApiServer, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_commands, "POLL_INTERVAL_S", 0.05)
    monkeypatch.chdir(root)
    source_id = run(api_server, "source", "add", "show", ".", "--watch", "3600", "--label", "show:x").stdout.strip()
    assert source_id.startswith("src_")
    assert "scan requested" in run(api_server, "source", "list").stdout
    with running_scanner(api_server, root):
        assert "present 1" in run(api_server, "source", "scan", "show", "--wait").stdout
    listed = run(api_server, "source", "list").stdout
    assert [word in listed for word in (str(root), "60 min", "show:x", "present 1", source_id)] == [True] * 5
    files = run(api_server, "source", "files", "show").stdout
    assert ("a [x264].mp4" in files, "vid_" in files) == (True, True)
    assert run_json(api_server, "source", "files", source_id, "--state", "gone") == []
    with running_scanner(api_server, root, fails=True):
        failed = run(api_server, "source", "scan", "show", "--wait", "--force", code=1)
    assert "failed: The folder is empty." in failed.stdout
    refused = run(api_server, "source", "add", "other", "..", code=2)
    assert refused.stderr.startswith("source_forbidden: ")
    assert "/folder: " in refused.stderr
    unknown = run(api_server, "source", "scan", "none", code=2).stderr
    assert unknown == "not_found: There is no source of that name or id.\n"
    assert "is not NAME:VALUE" in run(api_server, "source", "add", "other", ".", "--label", "x", code=2).stderr
    assert run(api_server, "source", "remove", "show").stdout.strip() == source_id
    assert run_json(api_server, "source", "list") == []


def test_batch(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "RECONNECT_DELAY_S", 0.05)
    first_video, second_video = add_videos(api_server.database, 2)
    batch = run(
        api_server, "batch", "create", "-m", "shots", "-p", "detector=hsv_luv", "--video", first_video,
        "--video", second_video, "--cap", "0", "--name", "both", "--job-label", "show:y",
    ).stdout.strip()  # fmt: skip
    record = run_json(api_server, "batch", "show", batch)
    assert (record["name"], record["cap"], record["labels"]) == ("both", None, {"show": "y"})
    assert record["analyses"][0]["params"]["detector"] == "hsv_luv"
    wakes = dispatch_batch(api_server.database, batch)
    finish_runs(api_server.database, wakes[:1], failed=True)
    threading.Timer(0.5, lambda: finish_runs(api_server.database, wakes[1:])).start()
    watched = run(api_server, "batch", "watch", batch, code=1)
    assert watched.stdout.startswith(f"{batch} failed")
    assert f"{first_video} failed: out_of_memory" in watched.stderr
    assert "% of 2 videos" in watched.stderr
    assert "failed 1" in run(api_server, "batch", "list", "--state", "failed").stdout
    items = run(api_server, "batch", "show", batch, "--state", "failed").stdout
    assert (first_video in items, second_video in items) == (True, False)
    assert run(api_server, "batch", "retry", batch).stdout.startswith(f"{batch} running")
    cancelled = run(api_server, "batch", "cancel", batch).stdout
    assert cancelled.startswith(f"{batch} cancelled")
    assert run(api_server, "batch", "pause", batch, code=2).stderr.startswith("conflict: ")
    second = run(api_server, "batch", "create", "-m", "shots", "--video", first_video).stdout.strip()
    for verb, state in (("pause", "paused"), ("resume", "queued")):
        assert run(api_server, "batch", verb, second).stdout.startswith(f"{second} {state}")
    threading.Timer(0.3, lambda: finish_runs(api_server.database, dispatch_batch(api_server.database, second))).start()
    assert run(api_server, "batch", "watch", second).stdout.startswith(f"{second} succeeded")
    assert "first 1" in run(api_server, "batch", "diff", second).stdout
    assert (
        run(api_server, "batch", "create", "-m", "no", code=2)
        .stderr.splitlines()[1]
        .startswith("  /analyses/0/model: ")
    )


def test_reprocess(api_server: ApiServer) -> None:
    (video_id,) = add_videos(api_server.database, 1)
    analysis = factories.make_analysis(threshold=0.3)
    created = jobs.create_job(api_server.database, NewJob(video_id, (analysis,)))
    finish_runs(api_server.database, created.wakeups, factories.make_shots((0, 100), (100, 240)))
    command = ("reprocess", "--model", "shots", "--param", "threshold=0.4", "--video", video_id)
    table = run(api_server, *command, "--dry-run").stdout
    assert [word in table for word in ("selected", "to do", "run shots", "cpu fp32", "5 s (5 s to 5 s, by")] == [
        True
    ] * 5
    assert run_json(api_server, *command, "--dry-run", "--only", "missing")["selected"]["videos"] == 0
    batch = run(
        api_server, *command, "--hours", "00:00-23:59", "--timezone", "Europe/Berlin", "--priority", "normal"
    ).stdout
    record = run_json(api_server, "batch", "show", batch.strip())
    assert (record["kind"], record["priority"], record["hours"]["timezone"]) == ("reprocess", "normal", "Europe/Berlin")
    finish_runs(
        api_server.database,
        dispatch_batch(api_server.database, record["id"]),
        factories.make_shots((0, 104), (104, 240)),
    )
    changed = run(api_server, "batch", "diff", record["id"]).stdout
    assert ("compared 1" in changed, "median 4, largest 4" in changed) == (True, True)
    assert "nothing is left to do" in run(api_server, *command, code=2).stderr
    left_out = run(api_server, *command, "--only", "all", "--dry-run").stdout
    assert "left out, done already" in left_out


def test_schedule(api_server: ApiServer) -> None:
    add_videos(api_server.database, 1)
    schedule_id = run(
        api_server, "schedule", "add", "nightly", "-m", "shots", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin",
        "--hours", "22:00-06:00", "--only", "missing",
    ).stdout.strip()  # fmt: skip
    shown = run(api_server, "schedule", "show", "nightly").stdout
    assert [
        word in shown for word in ("30 2 * * * Europe/Berlin", "22:00-06:00 Europe/Berlin", "once: Slots that")
    ] == [True] * 3
    edit = (
        "schedule", "edit", "nightly", "--every", "3600", "--catch-up", "all", "--only", "all", "--hours", "always",
        "--cap", "7", "--name", "hourly",
    )  # fmt: skip
    assert "Parameters go with --model" in run(api_server, *edit, "--param", "x=1", code=2).stderr
    run(api_server, *edit)
    record = run_json(api_server, "schedule", "show", schedule_id)
    assert (record["name"], record["cron"], record["every_s"], record["catch_up"]) == ("hourly", None, 3600, "all")
    assert (record["hours"], record["cap"], record["timezone"]) == (None, 7, "Europe/Berlin")
    assert (record["selection"]["only"], record["analyses"][0]["model"]) == ("all", "shots")
    assert "paused since" in run(api_server, "schedule", "pause", "hourly").stdout
    assert "every 60 min" in run(api_server, "schedule", "list").stdout
    assert "paused since" not in run(api_server, "schedule", "resume", "hourly").stdout
    batch = run(api_server, "schedule", "run", "hourly").stdout.strip()
    assert run_json(api_server, "batch", "show", batch)["schedule_id"] == schedule_id
    assert run(api_server, "schedule", "remove", "hourly").stdout.strip() == schedule_id
    assert run(api_server, "schedule", "show", "hourly", code=2).stderr.startswith("not_found: ")
    bad = run(api_server, "schedule", "add", "x", "-m", "shots", "--cron", "x", code=2).stderr
    assert "  /cron: " in bad


def test_queue(api_server: ApiServer) -> None:
    assert run(api_server, "queue", "drain", "shots").stdout == "shots draining\n"
    refused = run(api_server, "batch", "create", "-m", "shots", code=2).stderr
    assert refused.startswith("model_unavailable: The queue of shots is being drained")
    assert run(api_server, "queue", "pause", "shots").stdout == "shots paused\n"
    listed = run(api_server, "queue", "list").stdout
    assert ("paused" in listed, "bassl" in listed) == (True, True)
    assert run(api_server, "queue", "resume", "shots").stdout == "shots open\n"
    assert queues.list_draining_models(api_server.database, ["shots"]) == []
    assert run(api_server, "queue", "pause", "no", code=2).stderr.startswith("not_found: ")


def test_missing_weights_are_reported(api_server: ApiServer) -> None:
    announce_without_weights(api_server.database, "bassl")
    assert run(api_server, "reprocess", "-m", "bassl", code=2).stderr.startswith("weights_missing: ")


def test_no_answer() -> None:
    for command in (["source", "list"], ["batch", "list"], ["schedule", "list"], ["queue", "list"]):
        done = CliRunner().invoke(app, ["--url", "http://127.0.0.1:9", *command])
        assert done.exit_code == 3, command
