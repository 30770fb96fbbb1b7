"""The operator's pages as the server draws them: without scripts, behind the same door, with all words escaped."""

from __future__ import annotations

import hashlib
import html
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse

from api.errors import KEY_COOKIE
from api.web.operate import sheet
from api.web.operate.asset import ASSETS, STATIC
from api.web.page import POLICY
from shared.catalog import MENU
from shared.errors import MediaCorrupt, WeightsMissing
from shared.store import runs, workers
from shared.store.archive import batches, queues, schedules, sources
from shared.store.archive.batches import NewBatch
from shared.store.archive.schedules import NewSchedule
from shared.store.archive.sources import NewSource
from shared.values import Job
from shared.values.archive.batches import Work
from shared.values.archive.timetable import Timetable
from tests import factories
from tests.api.conftest import Make, finish_run, named_film
from tests.shared.archive.test_batches import end, feed

WORK = Work(analyses=(("shots", factories.analysis().params.model_dump(mode="json")),))
HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}"
FORM = {
    "kind": "reprocess", "model": "shots", "only": "missing", "priority": "low", "cap": "", "zone": "UTC",
    "shots.detector": "hsv_luv", "labels": "", "videos": "", "job_labels": "show:x\n\nseason: 2",
}  # fmt: skip


def fail(database: Engine, job: Job, detail: str) -> None:
    claim = factories.claim(database, job.runs[0].id)
    assert claim is not None
    runs.fail(database, claim, MediaCorrupt(detail).problem(), retry=False, backoff_s=0)


def hidden(answer: TestResponse, name: str) -> str:
    (value,) = re.findall(rf'name="{name}" value="([^"]*)"', answer.text)
    return html.unescape(value)


def section(answer: TestResponse, name: str) -> str:
    (found,) = re.findall(rf'<section id="{name}".*?</section>', answer.text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found))


# The board ------------------------------------------------------------------------------------------------------------


def test_the_board_says_how_everything_stands(client: FlaskClient, database: Engine) -> None:
    missing = WeightsMissing("There are none: pull them.").problem()
    offers = [
        {"model": "shots", "weights": "a" * 64, "error": None},
        {"model": "bassl", "weights": None, "error": missing},
    ]
    workers.announce(database, "host:1", state="ready", reason=None, models=offers, device="cuda:0", precision="bf16")
    workers.announce(database, "host:2", state="setup_failed", reason="No GPU.", models=[], device="", precision="")
    with database.begin() as connection:
        connection.execute(text("UPDATE workers SET heartbeat_at = now() - interval '1 minute' WHERE id = 'host:2'"))
    for at in range(2):
        fail(database, factories.job(database), f"broken {at}")
    factories.job(database, analyses=(factories.analysis("bassl"),))
    queues.set_mode(database, "bassl", "draining")
    sources.add(database, NewSource("the north", "/films/north"))
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
    assert page.headers["Content-Security-Policy"] == POLICY


def test_schedules_with_their_times_in_their_zone(client: FlaskClient, database: Engine) -> None:
    """And in UTC; one that is late says so first; a paused one says none."""
    now = datetime.now(UTC)
    made = [
        schedules.create(database, NewSchedule(name, Timetable("30 1 * * *", None, "Europe/London", now), WORK), now)
        for name in ("nightly", "resting")
    ]
    schedules.pause(database, made[1].id)
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
        factories.stored(database)
    for at in range(14):
        batches.create(database, NewBatch(f"batch-{at:02d}", WORK))
    page = client.get("/operator")
    names = re.findall(r'class="name" href="/operator/batches/[^"]*">(batch-\d\d)', page.text)
    assert names == [f"batch-{at:02d}" for at in range(13, 1, -1)]
    assert "0 % of 3 films · 3 waiting" in section(page, "batches")
    more = re.search(r'rel="next" href="([^"#]+)', page.text)
    assert more
    assert re.findall(r">(batch-\d\d)<", client.get(html.unescape(more[1])).text) == ["batch-01", "batch-00"]
    assert client.get("/operator?page_token=nonsense").status_code == 400


def test_decisions_without_scripts(client: FlaskClient, database: Engine) -> None:
    factories.stored(database)
    batch = batches.create(database, NewBatch("all", WORK))
    now = datetime.now(UTC)
    schedule = schedules.create(database, NewSchedule("hourly", Timetable(None, 3600, "UTC", now), WORK), now)
    source = sources.add(database, NewSource("north", "/films/north"))

    def decide(place: str, **form: str) -> str:
        answer = client.post(f"/operator/{place}", data=form)
        assert answer.status_code == 303, answer.text
        return answer.headers["Location"]

    assert decide("queues/shots/draining") == "/operator#queues"
    assert queues.draining(database, ["shots"]) == ["shots"]
    assert decide("queues/shots/open") == "/operator#queues"
    assert decide(f"batches/{batch.id}/pause") == "/operator#batches"
    assert batches.get(database, batch.id).state.value == "paused"
    assert decide(f"batches/{batch.id}/resume", **{"from": "batch"}) == f"/operator/batches/{batch.id}"
    end(database, feed(database, batch), failed=True)
    assert "Retry what failed" in client.get("/operator").text
    decide(f"batches/{batch.id}/retry")
    decide(f"batches/{batch.id}/cancel")
    assert batches.get(database, batch.id).state.value == "cancelled"
    assert decide(f"schedules/{schedule.id}/pause") == "/operator#schedules"
    assert schedules.get(database, schedule.id).paused_at is not None
    decide(f"schedules/{schedule.id}/resume")
    assert decide(f"schedules/{schedule.id}/run") == "/operator#batches"
    assert batches.page(database, limit=1)[0].schedule_id == schedule.id
    decide(f"schedules/{schedule.id}/delete")
    assert schedules.page(database, limit=9) == []
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


def test_only_this_site_and_only_with_a_key(make_app: Make, database: Engine) -> None:
    client = make_app(api_keys=hashlib.sha256(b"key").hexdigest()).test_client()
    for place in ("/operator", "/operator/batches/new", "/operator/schedules/new", "/runs/run_x/diff"):
        answer = client.get(place)
        assert (answer.status_code, "Sign in" in answer.text) == (401, True)
    assert client.post("/operator/queues/shots/paused").status_code == 401
    client.set_cookie(KEY_COOKIE, "key")
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.post("/operator/queues/shots/paused", headers=headers).status_code == 403
    assert {queue.mode for queue in queues.all(database)} == {"open"}
    assert client.post("/operator/queues/shots/paused", headers={"Origin": "http://localhost"}).status_code == 303
    for name in ASSETS:
        with client.get(f"/web/operate/{name}") as asset:
            assert asset.get_data() == (STATIC / name).read_bytes()
    assert client.get("/web/operate/none.js").status_code == 404
    assert {path.name for path in STATIC.iterdir()} == set(ASSETS)


def test_hostile_words_are_only_words(client: FlaskClient, database: Engine) -> None:
    job = factories.job(database, named_film(database, HOSTILE))
    fail(database, job, HOSTILE)
    batch = batches.create(database, NewBatch(HOSTILE, WORK))
    now = datetime.now(UTC)
    schedules.create(database, NewSchedule(HOSTILE, Timetable(None, 3600, "UTC", now), WORK), now)
    sources.add(database, NewSource(HOSTILE, f"/films/{HOSTILE}"))
    asked = client.post("/operator/batches/check", data=FORM | {"name": HOSTILE, "labels": HOSTILE})
    for page in (client.get("/operator"), client.get(f"/operator/batches/{batch.id}"), asked):
        assert "&lt;img src=x onerror=alert(1)&gt;" in page.text
        assert "<img src=x" not in page.text
        assert "{{7*7}}" in page.text


# The forms ------------------------------------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing_and_what_it_showed_is_started(client: FlaskClient, database: Engine) -> None:
    films = [factories.stored(database) for _ in range(3)]
    end(database, feed(database, batches.create(database, NewBatch("before", WORK))))
    some = f"{films[0].id}\n{films[1].id}, {films[2].id}"
    shown = client.post(
        "/operator/batches/check", data=FORM | {"only": "outdated", "videos": some, "since": "22:00", "until": "06:00"}
    )
    assert shown.status_code == 200
    plan = section(shown, "plan")
    assert "With something to do 3, 30.0 s" in plan
    assert "shots 3 30.0 s cpu, fp32" in plan
    assert len(batches.page(database, limit=9)) == 1
    started = client.post("/operator/batches", data={name: hidden(shown, name) for name in ("kind", "asked")})
    batch = batches.page(database, limit=1)[0]
    assert started.headers["Location"] == f"/operator/batches/{batch.id}"
    assert (batch.videos, batch.kind, batch.name) == (3, "reprocess", "shots")
    assert (batch.work.cap, batch.work.labels) == (None, {"show": "x", "season": " 2"})
    assert batch.work.selection.videos == tuple(film.id for film in films)
    assert batch.work.hours is not None
    assert batch.work.analyses[0][1]["detector"] == "hsv_luv"
    like = client.get(f"/operator/batches/new?like={batch.id}")
    assert hidden(like, "since") == "22:00"
    assert "<option selected>hsv_luv</option>" in like.text


def test_nothing_left_to_do(client: FlaskClient, database: Engine) -> None:
    factories.stored(database)
    end(database, feed(database, batches.create(database, NewBatch("before", WORK))))
    again = FORM | {"shots.detector": "transnetv2", "only": "missing_or_outdated"}
    shown = client.post("/operator/batches/check", data=again)
    assert "Nothing is left to do." in section(shown, "plan")
    assert 'name="asked"' not in shown.text


@pytest.mark.parametrize(
    ("given", "field", "detail"),
    [
        ({"model": ""}, "models", "at least 1 item"),
        ({"shots.threshold": "2"}, "shots.threshold", "less than"),
        ({"shots.threshold": "much"}, "shots.threshold", "valid number"),
        ({"shots.threshold": "nan"}, "", "not a JSON number"),
        ({"cap": "0"}, "cap", "greater than or equal to 1"),
        ({"cap": "many"}, "cap", "valid integer"),
        ({"labels": "no colon"}, "labels", "name:value"),
        ({"job_labels": "no colon"}, "job_labels", "name:value"),
        ({"videos": "vid_none"}, "videos", "no such video"),
        ({"sources": "src_none"}, "sources", "no such source"),
        ({"since": "25:00", "until": "06:00"}, "since", "match pattern"),
        ({"since": "22:00", "until": "06:00", "zone": "Mars/Phobos"}, "zone", "no time zone"),
        ({"only": "some"}, "only", "missing"),
        ({"code": "media_corrupt"}, "code", "goes with"),
        ({"name": "\0"}, "", "NUL"),
        ({"name": "n" * 201}, "name", "200"),
        ({"kind": "sabotage"}, "", "reprocess, batch"),
    ],
)  # fmt: skip
def test_faults_stand_beside_their_fields(
    given: dict[str, str], field: str, detail: str, client: FlaskClient, database: Engine
) -> None:
    sources.add(database, NewSource("north", "/films/north"))
    shown = client.post("/operator/batches/check", data=FORM | given)
    assert shown.status_code in {400, 404}
    faults = re.findall(r"<li>(.*?)</li>", shown.text.partition('id="faults"')[2].partition("</div>")[0], re.DOTALL)
    assert any(detail in html.unescape(fault) for fault in faults), faults
    if field:
        assert f'href="#{field}"' in "".join(faults)
        assert re.search(rf'<(input|select|textarea|fieldset|div)[^>]* id="{re.escape(field)}"', shown.text)
    for name, value in given.items():
        if value.isprintable() and name in {"cap", "since", "shots.threshold", "labels"}:
            assert html.escape(value) in shown.text


def test_every_parameter_goes_round(client: FlaskClient, database: Engine) -> None:
    """What a batch asks for fills its form, and the form asks for the same again."""
    params: dict[str, dict[str, Any]] = {
        "clip_it": {"sentences": ["a rabbit", "a bird"]}, "mttr": {"queries": ["the rabbit"]},
    }  # fmt: skip
    work = Work(
        tuple((name, spec.params(**params.get(name, {})).model_dump(mode="json")) for name, spec in MENU.items()),
        cap=7, labels={"a": "b"},
    )  # fmt: skip
    asked = sheet.batch(sheet.of_work(work))
    assert [one["model"] for one in asked["analyses"]] == list(MENU)
    for one, (name, full) in zip(asked["analyses"], work.analyses, strict=True):
        assert MENU[name].params(**one["params"]).model_dump(mode="json") == full
    assert (asked["cap"], asked["labels"], asked["hours"]) == (7, {"a": "b"}, None)


def test_what_was_not_shown_is_not_started(client: FlaskClient, database: Engine) -> None:
    factories.stored(database)
    for asked in ("", "{}", '{"analyses": [{"model": "shots"}], "surprise": 1}', "[" * 2000):
        assert client.post("/operator/batches", data={"kind": "batch", "asked": asked}).status_code == 400
    whole = json.dumps({"analyses": [{"model": "shots"}]})
    assert client.post("/operator/batches", data={"kind": "schedule", "asked": whole}).status_code == 400
    assert batches.page(database, limit=9) == []
    assert client.post("/operator/batches", data={"kind": "batch", "asked": whole}).status_code == 303


SCHEDULE = FORM | {
    "name": "nightly",
    "cron": "0 2 * * *",
    "every_s": "",
    "timezone": "Europe/Berlin",
    "catch_up": "all",
}


def test_a_schedule_is_shown_saved_and_changed(client: FlaskClient, database: Engine) -> None:
    factories.stored(database)
    shown = client.post("/operator/schedules/check", data=SCHEDULE)
    assert shown.status_code == 200, shown.text
    assert len(re.findall(r"02:00 CES?T", section(shown, "plan"))) == 5
    assert "With something to do 1" in section(shown, "plan")
    saved = client.post("/operator/schedules", data={name: hidden(shown, name) for name in ("asked",)})
    assert saved.headers["Location"] == "/operator#schedules"
    (schedule,) = schedules.page(database, limit=9)
    assert (schedule.timetable.cron, schedule.timetable.timezone, schedule.catch_up) == (
        "0 2 * * *",
        "Europe/Berlin",
        "all",
    )
    known = client.get(f"/operator/schedules/{schedule.id}")
    assert [hidden(known, name) for name in ("cron", "timezone", "name")] == ["0 2 * * *", "Europe/Berlin", "nightly"]
    other = SCHEDULE | {"schedule": schedule.id, "cron": "", "every_s": "7200"}
    again = client.post("/operator/schedules/check", data=other)
    assert (
        client.post("/operator/schedules", data={"schedule": schedule.id, "asked": hidden(again, "asked")}).status_code
        == 303
    )
    assert schedules.get(database, schedule.id).timetable.every_s == 7200


@pytest.mark.parametrize(
    ("given", "field"),
    [({"cron": "61 * * * *"}, "cron"), ({"every_s": "60"}, "cron"), ({"cron": "", "every_s": "5"}, "every_s"),
     ({"timezone": "Mars/Phobos"}, "timezone"), ({"name": ""}, "name"), ({"catch_up": "never"}, "catch_up")],
)  # fmt: skip
def test_faults_of_a_schedule(given: dict[str, str], field: str, client: FlaskClient) -> None:
    shown = client.post("/operator/schedules/check", data=SCHEDULE | given)
    assert shown.status_code == 400
    assert f'<a href="#{field}">' in shown.text
    assert re.search(rf'id="{field}"[^>]*aria-invalid', shown.text)


def test_the_slots_of_a_schedule_and_what_became_of_them(client: FlaskClient, database: Engine) -> None:
    factories.stored(database)
    now = datetime.now(UTC)
    early = now - timedelta(hours=2, minutes=1)
    schedule = schedules.create(database, NewSchedule("hourly", Timetable(None, 3600, "UTC", early), WORK), early)
    fired = schedules.fire(database, schedule.id, now)
    told = section(client.get(f"/operator/schedules/{schedule.id}"), "schedule")
    assert [one.batch_id is None for one in fired] == [True, False]
    assert "skipped: missed: made up for by the latest one" in told
    assert re.search(r"fired ?, its batch", told)


# What changed ---------------------------------------------------------------------------------------------------------


def test_two_runs_without_scripts(client: FlaskClient, database: Engine) -> None:
    """Every stretch with what became of it, as a link into the film; what differs between the runs."""
    old = factories.job(database)
    finish_run(database, old, "shots", factories.shots((0, 100), (100, 200), (200, 240)))
    new = factories.job(database, old.video_id, analyses=(factories.analysis(detector="hsv_luv"),))
    finish_run(database, new, "shots", factories.shots((0, 103), (103, 150), (150, 200)))
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


def test_a_batch_of_films_and_their_states(client: FlaskClient, database: Engine) -> None:
    for at in range(60):
        named_film(database, f"film-{at:02d}.mp4")
    batch = batches.create(database, NewBatch("all", Work(analyses=WORK.analyses, cap=2)))
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
