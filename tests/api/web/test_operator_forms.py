"""The forms for a batch and for a schedule: a dry run first, faults beside their fields, and what was shown is done."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from api.web.operator import form_parsing
from shared.catalog import CATALOG
from shared.store.batches import batches, schedules
from shared.store.batches.batches import NewBatch
from shared.store.batches.schedules import NewSchedule
from shared.store.videos import sources
from shared.store.videos.sources import NewSource
from shared.values.batches import Workload
from shared.values.timetable import Timetable
from tests.api.web.test_operator_pages import FORM, WORK, section
from tests.shared.store.test_batches import end, feed
from tests.support import factories


def hidden(answer: TestResponse, name: str) -> str:
    (value,) = re.findall(rf'name="{name}" value="([^"]*)"', answer.text)
    return html.unescape(value)


def test_a_dry_run_writes_nothing_and_what_it_showed_is_started(client: FlaskClient, database: Engine) -> None:
    films = [factories.add_video(database) for _ in range(3)]
    end(database, feed(database, batches.create_batch(database, NewBatch("before", WORK))))
    some = f"{films[0].id}\n{films[1].id}, {films[2].id}"
    shown = client.post(
        "/operator/batches/check", data=FORM | {"only": "outdated", "videos": some, "since": "22:00", "until": "06:00"}
    )
    assert shown.status_code == 200
    plan = section(shown, "plan")
    assert "With something to do 3, 30.0 s" in plan
    assert "shots 3 30.0 s cpu, fp32" in plan
    assert len(batches.list_batches(database, limit=9)) == 1
    started = client.post("/operator/batches", data={name: hidden(shown, name) for name in ("kind", "asked")})
    batch = batches.list_batches(database, limit=1)[0]
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
    factories.add_video(database)
    end(database, feed(database, batches.create_batch(database, NewBatch("before", WORK))))
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
    sources.add_source(database, NewSource("north", "/films/north"))
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
    work = Workload(
        tuple((name, spec.params(**params.get(name, {})).model_dump(mode="json")) for name, spec in CATALOG.items()),
        cap=7, labels={"a": "b"},
    )  # fmt: skip
    asked = form_parsing.parse_batch(form_parsing.fill_from_work(work))
    assert [one["model"] for one in asked["analyses"]] == list(CATALOG)
    for one, (name, full) in zip(asked["analyses"], work.analyses, strict=True):
        assert CATALOG[name].params(**one["params"]).model_dump(mode="json") == full
    assert (asked["cap"], asked["labels"], asked["hours"]) == (7, {"a": "b"}, None)


def test_what_was_not_shown_is_not_started(client: FlaskClient, database: Engine) -> None:
    factories.add_video(database)
    for asked in ("", "{}", '{"analyses": [{"model": "shots"}], "surprise": 1}', "[" * 2000):
        assert client.post("/operator/batches", data={"kind": "batch", "asked": asked}).status_code == 400
    whole = json.dumps({"analyses": [{"model": "shots"}]})
    assert client.post("/operator/batches", data={"kind": "schedule", "asked": whole}).status_code == 400
    assert batches.list_batches(database, limit=9) == []
    assert client.post("/operator/batches", data={"kind": "batch", "asked": whole}).status_code == 303


SCHEDULE = FORM | {
    "name": "nightly",
    "cron": "0 2 * * *",
    "every_s": "",
    "timezone": "Europe/Berlin",
    "catch_up": "all",
}


def test_a_schedule_is_shown_saved_and_changed(client: FlaskClient, database: Engine) -> None:
    factories.add_video(database)
    shown = client.post("/operator/schedules/check", data=SCHEDULE)
    assert shown.status_code == 200, shown.text
    assert len(re.findall(r"02:00 CES?T", section(shown, "plan"))) == 5
    assert "With something to do 1" in section(shown, "plan")
    saved = client.post("/operator/schedules", data={name: hidden(shown, name) for name in ("asked",)})
    assert saved.headers["Location"] == "/operator#schedules"
    (schedule,) = schedules.list_schedules(database, limit=9)
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
    assert schedules.get_schedule(database, schedule.id).timetable.every_s == 7200


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
    factories.add_video(database)
    now = datetime.now(UTC)
    early = now - timedelta(hours=2, minutes=1)
    schedule = schedules.create_schedule(
        database, NewSchedule("hourly", Timetable(None, 3600, "UTC", early), WORK), early
    )
    fired = schedules.fire_schedule(database, schedule.id, now)
    told = section(client.get(f"/operator/schedules/{schedule.id}"), "schedule")
    assert [one.batch_id is None for one in fired] == [True, False]
    assert "skipped: missed: made up for by the latest one" in told
    assert re.search(r"fired ?, its batch", told)
