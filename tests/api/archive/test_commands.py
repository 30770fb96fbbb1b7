"""The commands for archives against a real gunicorn: what they print, and how they end."""

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

from api.client.archive import service, sources as source_commands
from api.client.archive.screen import duration
from api.client.commands import app
from shared.errors import SourceUnreachable
from shared.store import jobs
from shared.store.archive import queues, sources
from shared.store.archive.sources import Scan
from shared.store.jobs import NewJob
from tests import factories
from tests.api.archive.conftest import end, feed, films, no_weights
from tests.api.conftest import Served


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that the operator of the served API allows."""
    folder = tmp_path_factory.mktemp("films [HD]")
    os.environ["SCENEWORKS_ARCHIVE_ROOTS"] = str(folder)
    yield folder
    del os.environ["SCENEWORKS_ARCHIVE_ROOTS"]


def run(served: Served, *arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["--url", served.url, *arguments])
    assert done.exit_code == code, done.output
    return done


def told(served: Served, *arguments: str) -> Any:
    return json.loads(run(served, *arguments, "--json").stdout)


@contextmanager
def scanning(served: Served, folder: Path, *, fails: bool = False) -> Iterator[None]:
    """Meanwhile whatever scan is asked for is done."""
    over = threading.Event()

    def serve() -> None:
        while not over.wait(0.02):
            if (scan := sources.claim(served.database, "scanner", 30)) is not None:
                one_scan(served, scan, folder, fails=fails)

    scanner = threading.Thread(target=serve)
    scanner.start()
    try:
        yield
    finally:
        over.set()
        scanner.join()


def one_scan(served: Served, scan: Scan, folder: Path, *, fails: bool) -> None:
    """It finds a film, or cannot look."""
    if fails:
        sources.fail(served.database, scan, {"error": SourceUnreachable("The folder is empty.").problem()})
        return
    looked = sources.Looked(
        path=f"{folder}/a [x264].mp4", size=7, mtime_ns=1, sha256="a" * 64, video=factories.video(), name="a.mp4"
    )  # fmt: skip
    assert sources.seen(served.database, scan, [looked], {}, 30)
    sources.finish(served.database, scan, {})


def test_archive(served: Served, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_commands, "LOOK_EVERY_S", 0.05)
    monkeypatch.chdir(root)
    made = run(served, "archive", "add", "show", ".", "--watch", "3600", "--label", "show:x").stdout.strip()
    assert made.startswith("src_")
    assert "scan asked for" in run(served, "archive", "list").stdout
    with scanning(served, root):
        assert "present 1" in run(served, "archive", "scan", "show", "--wait").stdout
    listed = run(served, "archive", "list").stdout
    assert [word in listed for word in (str(root), "60 min", "show:x", "present 1", made)] == [True] * 5
    files = run(served, "archive", "files", "show").stdout
    assert ("a [x264].mp4" in files, "vid_" in files) == (True, True)
    assert told(served, "archive", "files", made, "--state", "gone") == []
    with scanning(served, root, fails=True):
        failed = run(served, "archive", "scan", "show", "--wait", "--force", code=1)
    assert "failed: The folder is empty." in failed.stdout
    refused = run(served, "archive", "add", "other", "..", code=2)
    assert refused.stderr.startswith("source_forbidden: ")
    assert "/folder: " in refused.stderr
    unknown = run(served, "archive", "scan", "none", code=2).stderr
    assert unknown == "not_found: There is no source of that name or id.\n"
    assert "is not NAME:VALUE" in run(served, "archive", "add", "other", ".", "--label", "x", code=2).stderr
    assert run(served, "archive", "remove", "show").stdout.strip() == made
    assert told(served, "archive", "list") == []


def test_batch(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "AGAIN_S", 0.05)
    one, other = films(served.database, 2)
    batch = run(
        served, "batch", "create", "-m", "shots", "-p", "detector=hsv_luv", "--video", one, "--video", other,
        "--cap", "0", "--name", "both", "--job-label", "show:y",
    ).stdout.strip()  # fmt: skip
    record = told(served, "batch", "show", batch)
    assert (record["name"], record["cap"], record["labels"]) == ("both", None, {"show": "y"})
    assert record["analyses"][0]["params"]["detector"] == "hsv_luv"
    wakes = feed(served.database, batch)
    end(served.database, wakes[:1], failed=True)
    threading.Timer(0.5, lambda: end(served.database, wakes[1:])).start()
    watched = run(served, "batch", "watch", batch, code=1)
    assert watched.stdout.startswith(f"{batch} failed")
    assert f"{one} failed: out_of_memory" in watched.stderr
    assert "% of 2 videos" in watched.stderr
    assert "failed 1" in run(served, "batch", "list", "--state", "failed").stdout
    items = run(served, "batch", "show", batch, "--state", "failed").stdout
    assert (one in items, other in items) == (True, False)
    assert run(served, "batch", "retry", batch).stdout.startswith(f"{batch} running")
    cancelled = run(served, "batch", "cancel", batch).stdout
    assert cancelled.startswith(f"{batch} cancelled")
    assert run(served, "batch", "pause", batch, code=2).stderr.startswith("conflict: ")
    made = run(served, "batch", "create", "-m", "shots", "--video", one).stdout.strip()
    for verb, state in (("pause", "paused"), ("resume", "queued")):
        assert run(served, "batch", verb, made).stdout.startswith(f"{made} {state}")
    threading.Timer(0.3, lambda: end(served.database, feed(served.database, made))).start()
    assert run(served, "batch", "watch", made).stdout.startswith(f"{made} succeeded")
    assert "first 1" in run(served, "batch", "diff", made).stdout
    assert run(served, "batch", "create", "-m", "no", code=2).stderr.splitlines()[1].startswith("  /analyses/0/model: ")


def test_reprocess(served: Served) -> None:
    (film,) = films(served.database, 1)
    end(served.database, jobs.create(served.database, NewJob(film, (factories.analysis(threshold=0.3),))).wakes,
        factories.shots((0, 100), (100, 240)))  # fmt: skip
    asked = ("reprocess", "--model", "shots", "--param", "threshold=0.4", "--video", film)
    table = run(served, *asked, "--dry-run").stdout
    assert [word in table for word in ("selected", "to do", "run shots", "cpu fp32", "5 s (5 s to 5 s, by")] == [
        True
    ] * 5
    assert told(served, *asked, "--dry-run", "--only", "missing")["selected"]["videos"] == 0
    batch = run(served, *asked, "--hours", "00:00-23:59", "--timezone", "Europe/Berlin", "--priority", "normal").stdout
    record = told(served, "batch", "show", batch.strip())
    assert (record["kind"], record["priority"], record["hours"]["timezone"]) == ("reprocess", "normal", "Europe/Berlin")
    end(served.database, feed(served.database, record["id"]), factories.shots((0, 104), (104, 240)))
    changed = run(served, "batch", "diff", record["id"]).stdout
    assert ("compared 1" in changed, "median 4, largest 4" in changed) == (True, True)
    assert "nothing is left to do" in run(served, *asked, code=2).stderr
    left_out = run(served, *asked, "--only", "all", "--dry-run").stdout
    assert "left out, done already" in left_out


def test_schedule(served: Served) -> None:
    films(served.database, 1)
    made = run(
        served, "schedule", "add", "nightly", "-m", "shots", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin",
        "--hours", "22:00-06:00", "--only", "missing",
    ).stdout.strip()  # fmt: skip
    shown = run(served, "schedule", "show", "nightly").stdout
    assert [
        word in shown for word in ("30 2 * * * Europe/Berlin", "22:00-06:00 Europe/Berlin", "once: Slots that")
    ] == [True] * 3
    edit = (
        "schedule", "edit", "nightly", "--every", "3600", "--catch-up", "all", "--only", "all", "--hours", "always",
        "--cap", "7", "--name", "hourly",
    )  # fmt: skip
    assert "Parameters go with --model" in run(served, *edit, "--param", "x=1", code=2).stderr
    run(served, *edit)
    record = told(served, "schedule", "show", made)
    assert (record["name"], record["cron"], record["every_s"], record["catch_up"]) == ("hourly", None, 3600, "all")
    assert (record["hours"], record["cap"], record["timezone"]) == (None, 7, "Europe/Berlin")
    assert (record["selection"]["only"], record["analyses"][0]["model"]) == ("all", "shots")
    assert "paused since" in run(served, "schedule", "pause", "hourly").stdout
    assert "every 60 min" in run(served, "schedule", "list").stdout
    assert "paused since" not in run(served, "schedule", "resume", "hourly").stdout
    batch = run(served, "schedule", "run", "hourly").stdout.strip()
    assert told(served, "batch", "show", batch)["schedule_id"] == made
    assert run(served, "schedule", "remove", "hourly").stdout.strip() == made
    assert run(served, "schedule", "show", "hourly", code=2).stderr.startswith("not_found: ")
    bad = run(served, "schedule", "add", "x", "-m", "shots", "--cron", "x", code=2).stderr
    assert "  /cron: " in bad


def test_queue(served: Served) -> None:
    assert run(served, "queue", "drain", "shots").stdout == "shots draining\n"
    refused = run(served, "batch", "create", "-m", "shots", code=2).stderr
    assert refused.startswith("model_unavailable: The queue of shots is being drained")
    assert run(served, "queue", "pause", "shots").stdout == "shots paused\n"
    listed = run(served, "queue", "list").stdout
    assert ("paused" in listed, "bassl" in listed) == (True, True)
    assert run(served, "queue", "resume", "shots").stdout == "shots open\n"
    assert queues.draining(served.database, ["shots"]) == []
    assert run(served, "queue", "pause", "no", code=2).stderr.startswith("not_found: ")


def test_weights_that_are_missing_are_said(served: Served) -> None:
    no_weights(served.database, "bassl")
    assert run(served, "reprocess", "-m", "bassl", code=2).stderr.startswith("weights_missing: ")


def test_no_answer() -> None:
    for command in (["archive", "list"], ["batch", "list"], ["schedule", "list"], ["queue", "list"]):
        done = CliRunner().invoke(app, ["--url", "http://127.0.0.1:9", *command])
        assert done.exit_code == 3, command


def test_durations_for_people() -> None:
    assert [duration(seconds) for seconds in (0.4, 99, 100, 5940, 6000, 86_400)] == [
        "0 s", "99 s", "2 min", "99 min", "1 h 40 min", "24 h 0 min",
    ]  # fmt: skip
