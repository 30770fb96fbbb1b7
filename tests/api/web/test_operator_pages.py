"""The operator's pages as the server draws them: without scripts, behind the same door, with all words escaped."""

from __future__ import annotations

import hashlib
import html
import re
from datetime import UTC, datetime

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse

from api.http.problems import KEY_COOKIE
from api.web.operator.assets import ASSETS, STATIC_FOLDER
from api.web.pages.routes import CONTENT_SECURITY_POLICY
from shared.errors import MediaCorrupt, WeightsMissing
from shared.store import workers
from shared.store.batches import batches, schedules
from shared.store.batches.batches import NewBatch
from shared.store.batches.schedules import NewSchedule
from shared.store.runs import queues, runs
from shared.store.videos import sources
from shared.store.videos.sources import NewSource
from shared.values import Job
from shared.values.batches import Workload
from shared.values.timetable import Timetable
from tests.api.conftest import MakeApp, add_named_video, finish_run
from tests.shared.store.test_batches import end, feed
from tests.support import factories

WORK = Workload(analyses=(("shots", factories.make_analysis().params.model_dump(mode="json")),))
HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}"
FORM = {
    "kind": "reprocess", "model": "shots", "only": "missing", "priority": "low", "cap": "", "zone": "UTC",
    "shots.detector": "hsv_luv", "labels": "", "videos": "", "job_labels": "show:x\n\nseason: 2",
}  # fmt: skip


def fail(database: Engine, job: Job, detail: str) -> None:
    claim = factories.claim_run(database, job.runs[0].id)
    assert claim is not None
    runs.fail_run(database, claim, MediaCorrupt(detail).to_problem(), retry=False, backoff_s=0)


def section(answer: TestResponse, name: str) -> str:
    (found,) = re.findall(rf'<section id="{name}".*?</section>', answer.text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found))


# The board ------------------------------------------------------------------------------------------------------------


def test_the_board_says_how_everything_stands(client: FlaskClient, database: Engine) -> None:
    missing = WeightsMissing("There are none: pull them.").to_problem()
    offers = [
        {"model": "shots", "weights": "a" * 64, "error": None},
        {"model": "bassl", "weights": None, "error": missing},
    ]
    workers.announce_worker(
        database, "host:1", state="ready", reason=None, models=offers, device="cuda:0", precision="bf16"
    )
    workers.announce_worker(
        database, "host:2", state="setup_failed", reason="No GPU.", models=[], device="", precision=""
    )
    with database.begin() as connection:
        connection.execute(text("UPDATE workers SET heartbeat_at = now() - interval '1 minute' WHERE id = 'host:2'"))
    for at in range(2):
        fail(database, factories.create_job(database), f"broken {at}")
    factories.create_job(database, analyses=(factories.make_analysis("bassl"),))
    queues.set_queue_mode(database, "bassl", "draining")
    sources.add_source(database, NewSource("the north", "/films/north"))
    page = client.get("/operator")
    assert page.status_code == 200
    assert re.search(
        r"shots open 1 0 0 [\d.]+ s .* 1 Pause Drain bassl draining since .* 0 0 1", section(page, "queues")
    )
    told = section(page, "workers")
    assert re.search(r"host:1 ready cuda:0, bf16 shots bassl: weights_missing There are none: pull them\.", told)
    assert re.search(r"host:2 silent No GPU\.", told)
    assert "media_corrupt shots 2" in section(page, "failures")
    assert "broken 1" in section(page, "failures")
    assert "the north /films/north 0 0 0 not yet Scan" in section(page, "sources")
    assert 'data-pace="2000"' in page.text
    assert page.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY


def test_schedules_with_their_times_in_their_zone(client: FlaskClient, database: Engine) -> None:
    """And in UTC; one that is late says so first; a paused one says none."""
    now = datetime.now(UTC)
    made = [
        schedules.create_schedule(
            database, NewSchedule(name, Timetable("30 1 * * *", None, "Europe/London", now), WORK), now
        )
        for name in ("nightly", "resting")
    ]
    schedules.pause_schedule(database, made[1].id)
    slot = r"\w{3} [\d-]+ 0[12]:[03]0 \w+ [\d-]+ 0[01]:[03]0 UTC( · )?"  # 02:00 in the night that has no 01:30
    told = section(client.get("/operator"), "schedules")
    assert re.search(rf"nightly on 30 1 \* \* \* Europe/London · shots Next: ({slot} ?){{3}} Catching", told)
    assert "Catching up: once. Slots that passed while nothing ran are made up for by one batch" in told
    assert re.search(r"resting paused 30 1 \* \* \* Europe/London · shots Catching up", told)
    with database.begin() as connection:
        connection.execute(text("UPDATE schedules SET next_at = '2026-03-29T01:00Z'"))
    assert "Next: Sun 2026-03-29 02:00 BST 2026-03-29 01:00 UTC ·" in section(client.get("/operator"), "schedules")


def test_batches_by_pages_with_what_can_be_decided(client: FlaskClient, database: Engine) -> None:
    for _ in range(3):
        factories.add_video(database)
    for at in range(14):
        batches.create_batch(database, NewBatch(f"batch-{at:02d}", WORK))
    page = client.get("/operator")
    names = re.findall(r'class="name" href="/operator/batches/[^"]*">(batch-\d\d)', page.text)
    assert names == [f"batch-{at:02d}" for at in range(13, 1, -1)]
    assert "0 % of 3 videos · 3 waiting" in section(page, "batches")
    more = re.search(r'rel="next" href="([^"#]+)', page.text)
    assert more
    assert re.findall(r">(batch-\d\d)<", client.get(html.unescape(more[1])).text) == ["batch-01", "batch-00"]
    assert client.get("/operator?page_token=nonsense").status_code == 400


def test_decisions_without_scripts(client: FlaskClient, database: Engine) -> None:
    factories.add_video(database)
    batch = batches.create_batch(database, NewBatch("all", WORK))
    now = datetime.now(UTC)
    schedule = schedules.create_schedule(database, NewSchedule("hourly", Timetable(None, 3600, "UTC", now), WORK), now)
    source = sources.add_source(database, NewSource("north", "/films/north"))

    def decide(place: str, **form: str) -> str:
        answer = client.post(f"/operator/{place}", data=form)
        assert answer.status_code == 303, answer.text
        return answer.headers["Location"]

    assert decide("queues/shots/draining") == "/operator#queues"
    assert queues.list_draining_models(database, ["shots"]) == ["shots"]
    assert decide("queues/shots/open") == "/operator#queues"
    assert decide(f"batches/{batch.id}/pause") == "/operator#batches"
    assert batches.get_batch(database, batch.id).state.value == "paused"
    assert decide(f"batches/{batch.id}/resume", **{"from": "batch"}) == f"/operator/batches/{batch.id}"
    end(database, feed(database, batch), failed=True)
    assert "Retry what failed" in client.get("/operator").text
    decide(f"batches/{batch.id}/retry")
    decide(f"batches/{batch.id}/cancel")
    assert batches.get_batch(database, batch.id).state.value == "cancelled"
    assert decide(f"schedules/{schedule.id}/pause") == "/operator#schedules"
    assert schedules.get_schedule(database, schedule.id).paused_at is not None
    decide(f"schedules/{schedule.id}/resume")
    assert decide(f"schedules/{schedule.id}/run") == "/operator#batches"
    assert batches.list_batches(database, limit=1)[0].schedule_id == schedule.id
    decide(f"schedules/{schedule.id}/delete")
    assert schedules.list_schedules(database, limit=9) == []
    assert decide(f"sources/{source.id}/scan") == "/operator#sources"


@pytest.mark.parametrize(
    ("place", "status"),
    [
        ("queues/shots/sideways", 404), ("queues/nothing/paused", 404), ("batches/bat_none/pause", 404),
        ("batches/bat_none/explode", 404), ("schedules/sch_none/run", 404), ("schedules/sch_none/explode", 404),
        ("sources/src_none/scan", 404), ("failures/retry", 400),
    ],
)  # fmt: skip
def test_what_cannot_be_decided(place: str, status: int, client: FlaskClient) -> None:
    answer = client.post(f"/operator/{place}")
    assert answer.status_code == status
    assert answer.mimetype == "text/html"


def test_only_this_site_and_only_with_a_key(make_app: MakeApp, database: Engine) -> None:
    client = make_app(api_keys=hashlib.sha256(b"key").hexdigest()).test_client()
    for place in ("/operator", "/operator/batches/new", "/operator/schedules/new", "/runs/run_x/diff"):
        answer = client.get(place)
        assert (answer.status_code, "Sign in" in answer.text) == (401, True)
    assert client.post("/operator/queues/shots/paused").status_code == 401
    client.set_cookie(KEY_COOKIE, "key")
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.post("/operator/queues/shots/paused", headers=headers).status_code == 403
    assert {queue.mode for queue in queues.list_queues(database)} == {"open"}
    assert client.post("/operator/queues/shots/paused", headers={"Origin": "http://localhost"}).status_code == 303
    for name in ASSETS:
        with client.get(f"/web/operator/{name}") as asset:
            assert asset.get_data() == (STATIC_FOLDER / name).read_bytes()
    assert client.get("/web/operator/none.js").status_code == 404
    assert {path.name for path in STATIC_FOLDER.iterdir()} == set(ASSETS)


def test_hostile_words_are_only_words(client: FlaskClient, database: Engine) -> None:
    job = factories.create_job(database, add_named_video(database, HOSTILE))
    fail(database, job, HOSTILE)
    batch = batches.create_batch(database, NewBatch(HOSTILE, WORK))
    now = datetime.now(UTC)
    schedules.create_schedule(database, NewSchedule(HOSTILE, Timetable(None, 3600, "UTC", now), WORK), now)
    sources.add_source(database, NewSource(HOSTILE, f"/films/{HOSTILE}"))
    asked = client.post("/operator/batches/check", data=FORM | {"name": HOSTILE, "labels": HOSTILE})
    for page in (client.get("/operator"), client.get(f"/operator/batches/{batch.id}"), asked):
        assert "&lt;img src=x onerror=alert(1)&gt;" in page.text
        assert "<img src=x" not in page.text
        assert "{{7*7}}" in page.text


# What changed ---------------------------------------------------------------------------------------------------------


def test_two_runs_without_scripts(client: FlaskClient, database: Engine) -> None:
    """Every stretch with what became of it, as a link into the video; what differs between the runs."""
    old = factories.create_job(database)
    finish_run(database, old, "shots", factories.make_shots((0, 100), (100, 200), (200, 240)))
    new = factories.create_job(database, old.video_id, analyses=(factories.make_analysis(detector="hsv_luv"),))
    finish_run(database, new, "shots", factories.make_shots((0, 103), (103, 150), (150, 200)))
    page = client.get(f"/runs/{new.runs[0].id}/diff")
    assert page.status_code == 200, page.text
    blocks = re.findall(r'class="block (\w+)" data-pair="(\d+)"[^>]* aria-label="([^"]+)"', page.text)
    assert [change for change, *_ in blocks] == ["moved", "split", "gone", "moved", "split", "split"]
    assert [pair for _, pair, _ in blocks] == ["0", "1", "2", "0", "1", "1"]
    assert blocks[0][2].startswith("moved: end +3 frames, 00:00:00:00 to ")
    assert blocks[1][2].startswith("split, 1 into 2, ")
    assert f'href="/v1/videos/{old.video_id}/media#t=0.000000,' in page.text
    assert "transnetv2 → hsv_luv" in page.text
    assert "style=" not in page.text
    assert client.get(f"/runs/{old.runs[0].id}/diff").status_code == 409
    assert client.get("/runs/run_none/diff").status_code == 404


def test_a_batch_of_videos_and_their_states(client: FlaskClient, database: Engine) -> None:
    for at in range(60):
        add_named_video(database, f"film-{at:02d}.mp4")
    batch = batches.create_batch(database, NewBatch("all", Workload(analyses=WORK.analyses, cap=2)))
    end(database, feed(database, batch)[:1], failed=True)
    page = client.get(f"/operator/batches/{batch.id}")
    assert len(re.findall(r'<tr id="film-\d+">', page.text)) == 50
    more = re.search(r'rel="next" href="([^"#]+)', page.text)
    assert more
    rest = client.get(f"/operator/batches/{batch.id}" + html.unescape(more[1]))
    assert len(re.findall(r'<tr id="film-\d+">', rest.text)) == 10
    failed = client.get(f"/operator/batches/{batch.id}?state=failed")
    assert re.findall(r'<tr id="film-(\d+)">', failed.text) == ["0"]
    assert "Compare what is done so far" in page.text
    assert "60 not done" in section(client.get(f"/operator/batches/{batch.id}?changed=1"), "changed")
    assert client.get(f"/operator/batches/{batch.id}?state=odd").status_code == 400
    assert client.get("/operator/batches/bat_none").status_code == 404
