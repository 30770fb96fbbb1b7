"""The list and the form, as a person uses them: from a video to its shots."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect
from sqlalchemy import Engine

from shared.errors import NotFound
from shared.storage import ContentStorage
from shared.store import workers
from shared.store.jobs import jobs
from shared.store.runs import runs
from shared.values import Job, Progress, Stage
from tests.api.conftest import ApiServer, make_video_file
from tests.browser.conftest import (
    GREY_VIDEO,
    SAMPLE_CLIP,
    TIMEOUT_MS,
    OpenPage,
    count_colours,
    create_job,
    finish_shots_run,
    fits_width,
    wait_for_condition,
)
from tests.support import factories
from tests.support.waiting import wait_until

pytestmark = pytest.mark.browser


def has_ready_worker(database: Engine) -> bool:
    return any(worker.state == "ready" for worker in workers.list_workers(database))


@contextmanager
def worker(served: ApiServer, broker_url: str, log: Path) -> Iterator[None]:
    """A real worker beside that API, ready."""
    database = served.database
    place = database.url.render_as_string(hide_password=False)
    env = os.environ | {"DATABASE_URL": place, "REDIS_URL": broker_url, "SCENEWORKS_DATA_DIR": str(served.data_dir)}
    with log.open("wb") as said:
        process = subprocess.Popen([sys.executable, "-m", "worker.main"], env=env, stdout=said, stderr=said)
    try:
        wait_until("the worker is ready or has ended", lambda: process.poll() is not None or has_ready_worker(database))
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.flow
def test_from_a_video_to_its_shots(visit: OpenPage, api_server: ApiServer, broker_url: str, tmp_path: Path) -> None:
    """Choose a video, watch the job, open it, see its shots, play one: as a person would."""
    video_path = tmp_path / "a <b>film & more.mp4"
    video_path.write_bytes(SAMPLE_CLIP.read_bytes() + b"\0\0\0\x08free")  # an empty box: other bytes are another video
    page = visit()
    with worker(api_server, broker_url, tmp_path / "worker.log"):
        page.get_by_label("Choose a video").set_input_files(video_path)
        page.get_by_text("Parameters").first.click()
        page.get_by_label("detector").select_option("hsv_luv")
        page.get_by_role("button", name="Submit").click()
        expect(page.locator("#outcome")).to_contain_text("Accepted: a <b>film & more.mp4")
        row = page.locator(".job").first
        expect(row.locator(".name")).to_have_text("a <b>film & more.mp4")
        expect(row.locator(".badge")).to_have_text("succeeded", timeout=TIMEOUT_MS)
    assert jobs.list_jobs(api_server.database, limit=1)[0].runs[0].params["detector"] == "hsv_luv"
    row.locator(".name").click()
    cells = page.locator("#strip a")
    expect(cells.first).to_be_visible()
    shots = cells.count()
    assert shots > 20
    assert page.locator("#total").inner_text() == str(shots)
    wait_for_condition(page, "document.querySelectorAll('#strip img')[1].naturalWidth > 0")
    wait_for_condition(page, "player.readyState >= 2")
    cells.nth(3).click()
    start = float(cells.nth(3).get_attribute("data-start") or "")
    wait_for_condition(page, f"player.currentTime > {start} && !player.paused")
    assert page.evaluate("player.currentTime") < start + 10
    assert page.evaluate("player.videoWidth") == 176
    assert int(page.locator("#strip a[aria-current]").get_attribute("data-at") or "") >= 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_the_list_looks_like_on_a_phone(scheme: str, visit: OpenPage, finished_job: Job) -> None:
    page = visit("/", 375, 800, scheme)
    expect(page.get_by_role("heading", name="New job")).to_be_in_viewport()
    expect(page.locator(f"#{finished_job.id} .name")).to_have_text("demo.mp4")
    page.get_by_text("Parameters").first.click()
    assert fits_width(page)
    assert page.locator("main").screenshot() != page.locator(".top").screenshot()
    assert count_colours(page, "main") > 100


def test_the_list_is_live(visit: OpenPage, database: Engine) -> None:
    """A job moves on without a reload, and the keyboard focus stays where it is."""
    job = factories.create_job(database)
    page = visit()
    row = page.locator(f"#{job.id}")
    expect(row.locator(".badge")).to_have_text("queued")
    row.locator(".name").focus()
    claim = factories.claim_run(database, job.runs[0].id)
    assert claim is not None
    stages = (Stage("encode", "running", 120, 240, "frame", 0.5),)
    runs.touch_run(database, claim, Progress(stages, 0.5), lease_s=30)
    expect(row.locator(".badge")).to_have_text("running")
    expect(row.locator(".pace")).to_contain_text("encode 120 of 240 frames · 240 frames/s")
    expect(page.locator("#said")).to_have_text("film.mp4: running")
    assert page.locator(".job progress").evaluate("(bar) => bar.value") == 0.5
    newer = factories.create_job(database)
    expect(page.locator(".job").first).to_have_id(newer.id)
    jobs.delete_job(database, newer.id)
    expect(page.locator(".job").first).to_have_id(job.id)
    assert page.evaluate("document.activeElement.closest('.job').id") == job.id


def test_a_running_job_gets_its_shots(visit: OpenPage, database: Engine, files: ContentStorage, tmp_path: Path) -> None:
    """Its shots and its player come without a reload."""
    video_path = make_video_file(tmp_path / "running.mp4", *GREY_VIDEO, "-g", "7")
    job = create_job(database, files, video_path)
    page = visit(f"/jobs/{job.id}")
    expect(page.locator("#job .badge")).to_have_text("queued")
    page.get_by_text("Delete …").click()
    finish_shots_run(database, files, tmp_path, video_path, job, [0, 50])
    expect(page.locator("#strip a")).to_have_count(2)
    expect(page.locator("#strip a[aria-current]")).to_have_attribute("data-at", "0")
    expect(page.locator("#job .badge")).to_have_text("succeeded")
    expect(page.locator("#said")).to_have_text("running.mp4: succeeded")
    page.locator("#strip a").nth(1).click()
    wait_for_condition(page, "player.currentTime > 2")
    page.get_by_role("button", name="Delete for good").click()  # still open
    expect(page.get_by_role("heading", name="New job")).to_be_visible()
    with pytest.raises(NotFound):
        jobs.get_job(database, job.id)


def test_what_is_not_taken_is_said_where_it_is(visit: OpenPage, tmp_path: Path) -> None:
    """A file that is no video, dropped on the form; then a video with a parameter out of its range."""
    page = visit(expected_statuses={415, 400})
    page.locator(".drop").dispatch_event("drop", {"dataTransfer": page.evaluate_handle(
        "() => { const data = new DataTransfer(); data.items.add(new File(['no film'], 'notes.txt')); return data; }"
    )})  # fmt: skip
    expect(page.locator("#chosen")).to_contain_text("notes.txt")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#outcome.error")).to_contain_text("(unsupported_media)")
    page.get_by_text("Parameters").first.click()
    page.locator("#shots\\.threshold").fill("0")
    page.get_by_label("Choose a video").set_input_files(make_video_file(tmp_path / "short.mp4", *GREY_VIDEO, "-g", "5"))
    page.get_by_role("button", name="Submit").click()
    expect(page.locator(".fault")).to_contain_text("greater than 0")
    expect(page.locator("#shots\\.threshold")).to_be_focused()
    page.locator("#shots\\.threshold").fill("0.6")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#outcome")).to_contain_text("Accepted: short.mp4")
    expect(page.locator(".fault")).to_have_count(0)


def test_what_only_the_caller_can_know_is_asked_for(visit: OpenPage, database: Engine, tmp_path: Path) -> None:
    """Before anything is sent; and not where the model is not chosen."""
    page = visit()
    page.get_by_label("Choose a video").set_input_files(make_video_file(tmp_path / "asked.mp4", *GREY_VIDEO, "-g", "9"))
    queries = page.locator("#mttr\\.queries")
    expect(queries).not_to_be_visible()
    page.get_by_label("Masks (MTTR)").check()
    page.get_by_label("Shots", exact=True).uncheck()
    expect(queries).to_be_visible()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(f"{request.method} {urlsplit(request.url).path}"))
    page.get_by_role("button", name="Submit").click()
    expect(queries).to_be_focused()
    queries.fill("the big rabbit\n\n  a bird \n")
    page.locator("#mttr\\.end_s").fill("2.5")
    page.locator("#mttr\\.overlay").uncheck()
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#outcome")).to_contain_text("Accepted: asked.mp4")
    assert [request for request in sent if request.startswith("POST")] == [
        "POST /v1/videos",
        "POST /v1/jobs",
    ]  # once, at the end
    (run,) = jobs.list_jobs(database, limit=1)[0].runs
    assert {name: run.params[name] for name in ("queries", "start_s", "end_s", "overlay", "link")} == {
        "queries": ["the big rabbit", "a bird"], "start_s": 0.0, "end_s": 2.5, "overlay": False, "link": False,
    }  # fmt: skip
