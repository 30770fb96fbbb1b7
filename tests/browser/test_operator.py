"""The operator's page in a browser: decisions by its buttons, batches and schedules by its forms, runs as lanes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import Engine, text

from shared.errors import MediaCorrupt, WeightsMissing
from shared.storage import ContentStorage
from shared.store import workers
from shared.store.batches import batches, schedules
from shared.store.batches.batches import NewBatch
from shared.store.jobs import jobs
from shared.store.runs import queues, runs
from shared.values import Job
from shared.values.batches import Selection, Workload
from tests.browser.conftest import (
    SAMPLE_CLIP,
    OpenPage,
    count_colours,
    create_finished_job,
    finish_shots_run,
    fits_width,
    wait_for_condition,
)
from tests.support import factories

pytestmark = pytest.mark.browser

OTHER = factories.make_analysis(detector="hsv_luv")


@pytest.fixture(autouse=True)
def empty(database: Engine) -> None:
    """The server is there for all tests of the module; each has the ledger for itself."""
    with database.begin() as connection:
        connection.execute(text("TRUNCATE videos, batches, schedules, queues, workers CASCADE"))


@pytest.fixture
def compared_jobs(database: Engine, files: ContentStorage, tmp_path: Path) -> tuple[Job, Job]:
    """The clip with seven shots, and once more with other parameters: every kind of change is among them."""
    first = create_finished_job(database, files, tmp_path, SAMPLE_CLIP, [0, 120, 240, 480, 720, 960, 1200])
    again = factories.create_job(database, first.video_id, analyses=(OTHER,))
    # kept 0..120 | 120..240 + 240..480 merged | 480 starts later | 720..960 split | the rest kept
    finish_shots_run(database, files, tmp_path, SAMPLE_CLIP, again, [0, 120, 482, 720, 800, 960, 1200])
    return jobs.get_job(database, first.id), jobs.get_job(database, again.id)


def modes(engine: Engine) -> dict[str, str]:
    return {queue.model: queue.mode for queue in queues.list_queues(engine)}


def test_a_queue_is_paused_drained_and_opened(visit: OpenPage, database: Engine) -> None:
    page = visit("/operator")
    row = page.locator("#queue-shots")
    expect(row.locator(".badge")).to_have_text("open")
    row.get_by_role("button", name="Pause shots").click()
    expect(row.locator(".badge")).to_have_text("paused")
    assert modes(database)["shots"] == "paused"
    assert page.url.endswith("/operator#queues")
    row.get_by_role("button", name="Drain shots").click()
    expect(row.locator(".badge")).to_have_text("draining")
    row.get_by_role("button", name="Resume shots").click()
    expect(row.locator(".badge")).to_have_text("open")
    assert set(modes(database).values()) == {"open"}


def test_the_page_renews_itself(visit: OpenPage, database: Engine) -> None:
    page = visit("/operator")
    row = page.locator("#queue-shots")
    expect(row.locator("td.n").first).to_have_text("0")
    row.get_by_role("button", name="Pause").focus()
    job = factories.create_job(database)
    missing = WeightsMissing("There are none of BaSSL: pull them.").to_problem()
    offers = [{"model": "shots", "weights": None, "error": None}, {"model": "bassl", "weights": None, "error": missing}]
    workers.announce_worker(
        database, "host:7", state="busy", reason=None, models=offers, device="cuda:0", precision="bf16"
    )
    workers.record_heartbeat(database, "host:7", state="busy", run_id=job.runs[0].id)
    expect(row.locator("td.n").first).to_have_text("1")
    assert page.evaluate("document.activeElement.closest('tr').id") == "queue-shots"
    worker = page.locator("#worker-1")
    expect(worker).to_contain_text("cuda:0, bf16")
    expect(worker.get_by_role("link", name="film.mp4")).to_have_attribute("href", f"/jobs/{job.id}")
    worker.get_by_text("weights_missing").click()
    expect(worker).to_contain_text("There are none of BaSSL: pull them.")
    workers.record_heartbeat(database, "host:7", state="ready", run_id=None)
    expect(worker.locator(".badge")).to_have_text("ready")
    expect(worker.locator("details")).to_have_attribute("open", "")


def test_a_group_of_failures_is_retried(visit: OpenPage, database: Engine) -> None:
    failed = [factories.create_job(database) for _ in range(2)]
    for at, job in enumerate(failed):
        claim = factories.claim_run(database, job.runs[0].id)
        assert claim is not None
        runs.fail_run(database, claim, MediaCorrupt(f"broken {at}").to_problem(), retry=False, backoff_s=0)
    page = visit("/operator")
    row = page.locator("#failed-shots-media_corrupt")
    expect(row).to_contain_text("broken 1")
    expect(row.locator("td.n")).to_have_text("2")
    row.get_by_role("button", name="Retry").click()
    expect(page.locator("#failures")).to_contain_text("Nothing stands failed.")
    expect(page.locator("#queue-shots td.n").first).to_have_text("2")
    assert {jobs.get_job(database, job.id).state.value for job in failed} == {"queued"}


def test_a_batch_after_its_dry_run(visit: OpenPage, database: Engine) -> None:
    """What is shown is what starts; then paused, resumed and cancelled."""
    video_ids = [factories.add_video(database) for _ in range(3)]
    page = visit("/operator", expected_statuses={400})
    page.get_by_role("link", name="New batch").first.click()
    page.get_by_label("Name").fill("all <of> it")
    page.get_by_role("checkbox", name="Shots").check()
    page.get_by_text("Parameters of Shots").click()
    page.locator("#shots\\.detector").select_option("hsv_luv")
    page.locator("#shots\\.threshold").fill("0")
    page.get_by_role("button", name="Dry run").click()
    expect(page.locator("#faults")).to_contain_text("greater than 0")
    expect(page.locator("#name")).to_have_value("all <of> it")
    page.locator("#shots\\.threshold").fill("0.4")
    page.get_by_text("Pace, hours and labels").click()
    page.get_by_label("Jobs at once").fill("1")
    page.get_by_role("button", name="Dry run").click()
    expect(page.locator("#to-do")).to_contain_text("3,")
    assert batches.list_batches(database, limit=9) == []
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("heading", name="all <of> it")).to_be_visible()
    (batch,) = batches.list_batches(database, limit=9)
    (asked,) = batch.work.analyses
    assert (asked[1]["detector"], asked[1]["threshold"], batch.work.cap) == ("hsv_luv", 0.4, 1)
    assert (batch.videos, batch.kind) == (len(video_ids), "reprocess")
    for button, state in (("Pause", "paused"), ("Resume", "queued")):
        page.get_by_role("button", name=f"{button} all").click()
        expect(page.locator("#batch .badge")).to_have_text(state)
    batches.dispatch_jobs(database, batch.id, datetime.now(UTC), 3)
    expect(page.locator("#film-0 .badge")).to_have_text("queued")
    page.get_by_text("Cancel …").click()
    page.get_by_role("button", name="Cancel it").click()
    expect(page.locator("#batch .badge")).to_have_text("cancelled")
    assert batches.get_batch(database, batch.id).cancelled_at is not None


def test_a_schedule_with_its_next_times(visit: OpenPage, database: Engine) -> None:
    factories.add_video(database)
    page = visit("/operator/schedules/new", expected_statuses={400})
    page.get_by_label("Name").fill("nightly")
    page.get_by_label("Cron").fill("0 2 * * *")
    page.get_by_label("Zone", exact=True).fill("Asia/Kathmandu")
    page.get_by_label("After a time in which nothing ran").select_option("skip")
    page.get_by_role("button", name="Dry run").click()
    expect(page.locator("#faults")).to_contain_text("models")
    page.get_by_role("checkbox", name="Shots").check()
    page.get_by_role("button", name="Dry run").click()
    # 02:00 in Nepal, which is 5:45 ahead
    expect(page.locator("#plan .slot")).to_have_count(5)
    expect(page.locator("#plan .slot").first).to_have_text(
        re.compile(r"\w{3} \d{4}-\d\d-\d\d 02:00 \+0545 .* 20:15 UTC")
    )
    assert schedules.list_schedules(database, limit=9) == []
    page.get_by_role("button", name="Save").click()
    (schedule,) = schedules.list_schedules(database, limit=9)
    row = page.locator(f"#{schedule.id}")
    expect(row.locator(".slot")).to_have_count(3)
    expect(row.locator(".slot").first).to_contain_text("20:15 UTC")
    expect(row).to_contain_text("Catching up: skip. Slots that passed while nothing ran are left out.")
    row.get_by_role("button", name="Pause nightly").click()
    expect(row.locator(".badge")).to_have_text("paused")
    row.get_by_role("link", name="nightly").click()
    page.get_by_label("Cron").fill("30 3 * * *")
    page.get_by_role("button", name="Dry run").click()
    page.get_by_role("button", name="Save").click()
    row.get_by_role("button", name="Resume nightly").click()
    expect(row.locator(".slot").first).to_contain_text("03:30 +0545")
    row.get_by_role("button", name="Run now nightly").click()
    expect(page.locator(".batch")).to_have_count(1)
    (batch,) = batches.list_batches(database, limit=9)
    assert batch.schedule_id == schedule.id


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_two_runs_as_lanes(
    width: int, scheme: str, visit: OpenPage, compared_jobs: tuple[Job, Job], tmp_path: Path
) -> None:
    first, again = compared_jobs
    page = visit(f"/runs/{again.runs[0].id}/diff?base_run_id={first.runs[0].id}", width, 900, scheme)
    lanes = page.locator(".lane")
    expect(lanes).to_have_count(2)
    assert [lanes.nth(at).locator(".block").count() for at in (0, 1)] == [7, 7]
    told = [lanes.nth(at).locator(".block").all_inner_texts() for at in (0, 1)]
    assert told[0] == ["kept", "merged", "merged", "moved", "split", "kept", "kept"]
    assert told[1] == ["kept", "merged", "moved", "split", "split", "kept", "kept"]
    assert fits_width(page)
    expect(page.locator(".sums")).to_contain_text("3 kept")
    expect(page.locator(".sums")).to_contain_text("moved by 2 frames")
    box, block = lanes.first.bounding_box(), lanes.first.locator(".block").nth(4).bounding_box()
    assert box is not None
    assert block is not None
    assert abs((block["x"] - box["x"]) / box["width"] - 720 / 1441) < 0.01
    page.screenshot(path=tmp_path / "diff.png", full_page=True)
    assert count_colours(page, ".lanes") > 20


def test_a_click_plays_the_video_from_there(visit: OpenPage, compared_jobs: tuple[Job, Job]) -> None:
    page = visit(f"/runs/{compared_jobs[1].runs[0].id}/diff")  # against the one that it has superseded
    wait_for_condition(page, "player.readyState >= 2")
    lanes = page.locator(".lane")
    lanes.nth(1).locator(".block").nth(1).click()
    wait_for_condition(page, "player.currentTime > 5 && !player.paused")
    assert page.evaluate("player.currentTime") < 15
    assert [one.get_attribute("data-start") for one in lanes.first.locator(".block.mate").all()] == ["5.0", "10.0"]
    page.evaluate("player.pause()")
    current = page.locator(".block[aria-current]")
    page.keyboard.press("ArrowRight")
    expect(current).to_have_attribute("data-start", re.compile(r"20\.08"))
    page.keyboard.press("ArrowUp")
    expect(current).to_have_attribute("data-start", "20.0")
    wait_for_condition(page, "document.querySelector('.now').style.left.startsWith('8')")  # 5 s of 60
    page.locator("#zoom").fill("10")
    assert (
        page.evaluate("document.querySelector('.wide').offsetWidth / document.querySelector('.lanes').clientWidth") > 9
    )


def test_what_a_batch_has_changed(visit: OpenPage, database: Engine, compared_jobs: tuple[Job, Job]) -> None:
    """Its sums, and the videos that changed most with the way to their lanes."""
    first, again = compared_jobs
    asked = (("shots", OTHER.params.model_dump(mode="json")),)
    batch = batches.create_batch(database, NewBatch("again", Workload(asked, Selection(videos=(first.video_id,)))))
    batches.dispatch_jobs(database, batch.id, datetime.now(UTC), 3)
    with database.begin() as connection:  # as it was when the batch was made before that run
        told = {"run": f'{{"shots": "{first.runs[0].id}"}}'}
        connection.execute(text("UPDATE batch_items SET before = CAST(:run AS jsonb)"), told)
    page = visit(f"/operator/batches/{batch.id}")
    assert sums(page) == {"kept": "3", "moved": "1", "merged": "1", "split": "1"}
    expect(page.locator("#most li")).to_have_count(1)
    expect(page.locator("#most li")).to_contain_text("3 not kept")
    page.locator("#most a").click()
    expect(page.locator(".lane").first.locator(".block")).to_have_count(7)
    assert page.url.endswith(f"/runs/{again.runs[0].id}/diff?base_run_id={first.runs[0].id}")


def sums(page: Page) -> dict[str, str]:
    """Changes by kind in the table of a batch, those that there are."""
    rows = ("thead th", "tbody tr:first-child > *")
    heads, cells = (page.locator(f"#sums {row}").all_inner_texts() for row in rows)
    return {head: cell for head, cell in zip(heads[3:-1], cells[3:-1], strict=True) if cell != "0"}
