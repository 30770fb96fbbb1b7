"""The page as the server draws it: what it says, what it escapes, its door, and its actions without scripts."""

from __future__ import annotations

import hashlib
import re
import zipfile
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import BaseModel, Field
from sqlalchemy import Engine

from api.http.problems import KEY_COOKIE
from api.web.pages.filters import format_duration, format_size
from api.web.pages.forms import build_form_fields
from api.web.pages.routes import STATIC_FILES, WEB_FOLDER
from shared.catalog import CATALOG, ModelSpec, Params
from shared.errors import NotFound, OutOfMemory
from shared.storage import ContentStorage
from shared.store.jobs import jobs
from shared.store.runs import runs
from shared.values import Artifact, Job, JobState, Progress, Stage, new_id
from tests.api.conftest import MakeApp, add_named_video
from tests.support import factories

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}.mp4"
KEY = "a key of the tests"


def finish(database: Engine, files: ContentStorage, folder: Path, job: Job, shots: int) -> str:
    """Let the first run of a job end with shots of ten frames and an archive of keyframes; the archive's id."""
    path = folder / "keyframes.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("shot_0000_img_1.jpg", b"\xff\xd8\xff a picture")
    stored = files.put_file(path)
    artifact = Artifact(new_id("art"), "keyframes", path.name, "application/zip", stored.sha256, stored.size)
    claim = factories.claim_run(database, job.runs[0].id)
    assert claim is not None
    bounds = [(10 * shot, 10 * shot + 10) for shot in range(shots)]
    stages = (Stage("encode", "done", 240, 240, "frame", 0.5), Stage("infer", "done", 1, 1, "step", 0.01))
    runs.finish_run(
        database, claim, progress=Progress(stages, 1.0), decode_failures=2, results=factories.make_shots(*bounds),
        artifacts=[artifact],
    )  # fmt: skip
    return artifact.id


def fail(database: Engine, job: Job, detail: str) -> None:
    claim = factories.claim_run(database, job.runs[0].id)
    assert claim is not None
    runs.fail_run(database, claim, OutOfMemory(detail).to_problem() | {"stage": "encode"}, retry=False, backoff_s=0)


def test_the_form_comes_from_the_menu(client: FlaskClient) -> None:
    html = client.get("/").text
    for spec in CATALOG.values():
        assert spec.title in html
        for name, field in spec.params.model_json_schema()["properties"].items():
            (blank,) = re.findall(
                rf'<(?:input|select|textarea)[^>]*id="{spec.name}.{name}" name="{name}".*?</div>', html, re.DOTALL
            )
            assert any(sign in blank for sign in default_signs(field)), blank
            assert ("data-required" in blank) == ("default" not in field)
    assert "No jobs yet." in html


def default_signs(field: dict[str, Any]) -> tuple[str, ...]:
    """How a field of the form may show the default of its parameter."""
    default = field.get("default")
    if isinstance(default, bool):
        return ('data-kind="boolean" aria-describedby="' if not default else " checked>",)
    if default in (None, []):
        return ('value=""', "></textarea>")
    return (f"<option selected>{default}</option>", f'value="{default}"')


class Mood(StrEnum):
    CALM = "calm"
    WILD = "wild"


class Box(BaseModel):
    left: int = 0


class OddParams(Params):
    """One parameter of every kind."""

    names: tuple[str, ...] = Field(min_length=1)
    sentences: list[str] = Field(["a rabbit", "a bird"], description="What to look for.")
    sure: bool = True
    most: int | None = Field(None, ge=1, le=9)
    part: float = Field(0.25, gt=0, lt=1)
    mood: Mood = Mood.WILD
    title: str = Field("", max_length=20)
    box: Box = Box()


def test_a_new_model_brings_its_own_fields() -> None:
    spec = ModelSpec("odd", "Odd", "", "", OddParams, (), (), (), None)
    found = {blank.name: blank for blank in build_form_fields(spec)}
    assert {name: blank.kind for name, blank in found.items()} == {
        "names": "lines", "sentences": "lines", "sure": "boolean", "most": "integer", "part": "number",
        "mood": "choice",
        "title": "string", "box": "json",
    }  # fmt: skip
    assert {name: blank.value for name, blank in found.items()} == {
        "names": "", "sentences": "a rabbit\na bird", "sure": "true", "most": "", "part": "0.25", "mood": "wild",
        "title": "",
        "box": '{"left": 0}',
    }  # fmt: skip
    assert found["most"].limits == {"min": 1, "max": 9, "step": 1}
    assert found["part"].limits == {"min": 0, "max": 1, "step": "any"}
    assert found["title"].limits == {"maxlength": 20}
    assert found["mood"].options == ("calm", "wild")
    assert [name for name, blank in found.items() if blank.required] == ["names"]
    assert (found["sentences"].id, found["sentences"].hint) == ("odd.sentences", "What to look for.")


def test_jobs_newest_first_by_pages(client: FlaskClient, database: Engine) -> None:
    names = [f"film-{number:02d}.mp4" for number in range(23)]
    for name in names:
        factories.create_job(database, add_named_video(database, name))
    first = client.get("/").text
    assert re.findall(r"film-\d\d\.mp4", first) == names[:2:-1]
    assert first.count(">queued<") == 20
    place = re.search(r'rel="next" href="([^"]+)"', first)
    assert place
    older = client.get(place[1]).text
    assert re.findall(r"film-\d\d\.mp4", older) == names[2::-1]
    assert 'rel="next"' not in older
    assert "New job" not in older
    assert client.get("/?page_token=nonsense").status_code == 400


def test_progress_in_words(client: FlaskClient, database: Engine) -> None:
    job = factories.create_job(database)
    claim = factories.claim_run(database, job.runs[0].id)
    assert claim is not None
    stages = (Stage("plan", "done", 1, 1), Stage("encode", "running", 26_800, 43_210, "frame", 29.4))
    runs.touch_run(database, claim, Progress(stages, 0.31), lease_s=30)
    for place in ("/", f"/jobs/{job.id}"):
        html = client.get(place).text
        assert re.search(r"encode 26,800 of 43,210 frames · 912 frames/s\s+· 18 s left", html), html
        assert 'value="0.3100"' in html
        assert 'data-pace="1000"' in html


def test_hostile_words_are_only_words(client: FlaskClient, database: Engine) -> None:
    job = factories.create_job(
        database, add_named_video(database, HOSTILE), external_id="</dd><script>alert(2)</script>",
        labels={"<b>": "javascript:alert(3)"},
    )  # fmt: skip
    fail(database, job, "<iframe src=//evil.example>")
    for place in ("/", f"/jobs/{job.id}"):
        html = client.get(place).text
        assert "&lt;img src=x onerror=alert(1)&gt;&#34;&#39;&amp;{{7*7}}.mp4" in html
        assert "&lt;iframe src=//evil.example&gt;" in html
        for raw in ("<img src=x", "<script>", "<iframe", "<b>"):
            assert raw not in html
    assert "&lt;/dd&gt;&lt;script&gt;alert(2)" in client.get(f"/jobs/{job.id}").text


def test_a_finished_job(client: FlaskClient, database: Engine, files: ContentStorage, tmp_path: Path) -> None:
    job = factories.create_job(database, add_named_video(database, "film.mp4"))
    archive = finish(database, files, tmp_path, job, 24)
    html = client.get(f"/jobs/{job.id}").text
    for words in (
        "1280 x 720", "h264, 8 bit, in mov", "23.976 fps", "10.0 s (240 frames)", "aac, 2 ch, 48 kHz", "2.16 MB",
        "succeeded", "240 frames", "2 packets could not be decoded", "cpu, fp32", job.runs[0].weights[:12],
        "keyframes.zip", f"/v1/jobs/{job.id}/results",
    ):  # fmt: skip
        assert words in html
    assert "data-pace" not in html
    starts = re.findall(r'data-start="([\d.]+)"', html)
    assert [float(start) for start in starts] == [round(10 * shot * 1001 / 24000, 6) for shot in range(24)]
    assert 'aria-label="Shot 24, from 00:00:09:14, 0.42 s"' in html
    picture = f"/v1/artifacts/{archive}/members/shot_0000_img_1.jpg"
    assert f'src="{picture}"' in html
    assert client.get(picture).status_code == 200
    assert f'<video id="player" src="/v1/videos/{job.video_id}/media"' in html


def test_shots_by_pages(client: FlaskClient, database: Engine, files: ContentStorage, tmp_path: Path) -> None:
    job = factories.create_job(database)
    finish(database, files, tmp_path, job, 650)
    place, numbers = f"/jobs/{job.id}", []
    while place:
        html = client.get(place).text
        numbers.append(len(re.findall(r'aria-label="Shot \d+,', html)))
        more = re.search(r'id="more" rel="next" href="([^"]+)"', html)
        place = more[1].replace("&amp;", "&") if more else ""
    assert numbers == [300, 300, 50]


def test_each_run_of_a_job_has_its_video(
    client: FlaskClient, database: Engine, files: ContentStorage, tmp_path: Path
) -> None:
    both = (factories.make_analysis(), factories.make_analysis(detector="hsv_luv"))
    job = factories.create_job(database, analyses=both)
    finish(database, files, tmp_path, job, 3)
    claim = factories.claim_run(database, job.runs[1].id)
    assert claim is not None
    runs.finish_run(
        database,
        claim,
        progress=Progress((), 1.0),
        decode_failures=0,
        results=factories.make_shots((0, 240)),
        artifacts=[],
    )
    for run, shots in zip(job.runs, (3, 1), strict=True):
        html = client.get(f"/jobs/{job.id}?run={run.id}").text
        assert len(re.findall(r'aria-label="Shot \d+,', html)) == shots
        assert f'href="?run={run.id}" aria-current="true"' in html


def test_a_failed_job_says_why_and_can_be_retried(client: FlaskClient, database: Engine) -> None:
    job = factories.create_job(database)
    fail(database, job, "One frame needs more memory than there is.")
    html = client.get(f"/jobs/{job.id}").text
    for words in ("One frame needs more memory than there is.", "<code>out_of_memory</code>", "in stage encode"):
        assert words in html
    answer = client.post(f"/jobs/{job.id}/retry")
    assert (answer.status_code, answer.location) == (303, f"/jobs/{job.id}")
    assert jobs.get_job(database, job.id).state is JobState.QUEUED


def test_cancel_and_delete(client: FlaskClient, database: Engine) -> None:
    job = factories.create_job(database)
    assert f'action="/jobs/{job.id}/cancel"' in client.get(f"/jobs/{job.id}").text
    assert client.post(f"/jobs/{job.id}/cancel").status_code == 303
    assert jobs.get_job(database, job.id).state is JobState.CANCELLED
    assert "/cancel" not in client.get(f"/jobs/{job.id}").text
    answer = client.post(f"/jobs/{job.id}/delete")
    assert (answer.status_code, answer.location) == (303, "/")
    with pytest.raises(NotFound):
        jobs.get_job(database, job.id)


def test_problems_are_pages_too(client: FlaskClient, database: Engine, files: ContentStorage, tmp_path: Path) -> None:
    job = factories.create_job(database)
    finish(database, files, tmp_path, job, 1)
    for answer, status, code in (
        (client.get("/jobs/job_none"), 404, "not_found"),
        (client.post(f"/jobs/{job.id}/cancel"), 409, "conflict"),
        (client.post(f"/jobs/{job.id}/explode"), 404, "not_found"),
        (client.post(f"/jobs/{job.id}/delete", headers={"Origin": "https://evil.example"}), 403, "forbidden"),
        (client.get("/web/job.html"), 404, "not_found"),
        (client.get("/web/..%2fpage.py"), 404, "not_found"),
    ):
        assert answer.status_code == status
        if answer.mimetype == "text/html":
            assert f"<code>{code}</code>" in answer.text
        else:
            assert answer.json["code"] == code
    assert jobs.get_job(database, job.id).id == job.id


def test_the_ledger_is_away(make_app: MakeApp) -> None:
    answer = make_app(database_url="postgresql://nobody@127.0.0.1:1/none").test_client().get("/")
    assert (answer.status_code, answer.mimetype) == (503, "text/html")
    assert "The database cannot be reached at the moment." in answer.text
    assert "127.0.0.1:1" not in answer.text


def test_the_policy_holds_for_what_we_serve(client: FlaskClient, database: Engine) -> None:
    """Nothing inline, nothing from elsewhere: so that a strict policy costs nothing."""
    factories.create_job(database)
    answer = client.get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    for template in (WEB_FOLDER / "templates").glob("*.html"):
        text = template.read_text()
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|<script(?! type=\"module\" src=\"/web/)", text), template
        assert not re.search(r"(src|href)=\"(https?:)?//", text), template
    for name in STATIC_FILES:
        asset = client.get(f"/web/{name}", buffered=True)
        assert asset.mimetype == ("text/css" if name.endswith(".css") else "text/javascript")
        assert not re.search(r"https?://(?!www\.w3\.org)|innerHTML|eval\(", asset.text)


def test_a_page_that_is_as_it_was_is_not_sent_again(client: FlaskClient, database: Engine) -> None:
    job = factories.create_job(database)
    first = client.get("/")
    again = {"If-None-Match": first.headers["ETag"]}
    assert client.get("/", headers=again).status_code == 304
    jobs.cancel_job(database, job.id)
    assert client.get("/", headers=again).status_code == 200


@pytest.fixture
def guarded(make_app: MakeApp) -> FlaskClient:
    return make_app(api_keys=hashlib.sha256(KEY.encode()).hexdigest()).test_client()


def test_the_way_in_and_out(guarded: FlaskClient) -> None:
    shut = guarded.get("/jobs/job_none?run=x")
    assert (shut.status_code, shut.mimetype) == (401, "text/html")
    assert 'action="/sign-in"' in shut.text
    assert 'name="next" value="/jobs/job_none?run=x"' in shut.text
    assert guarded.get("/web/page.css", buffered=True).status_code == 200
    answer = guarded.post("/sign-in", data={"key": KEY, "next": "/jobs/job_none?run=x"})
    assert (answer.status_code, answer.location) == (303, "/jobs/job_none?run=x")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"{KEY_COOKIE}=")
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Path=/"))
    assert "Secure" not in cookie
    page = guarded.get("/")
    assert page.status_code == 200
    assert "Sign out" in page.text
    assert KEY not in page.text
    assert guarded.get("/v1/jobs").status_code == 200
    assert guarded.post("/sign-out").status_code == 303
    assert guarded.get("/").status_code == 401


def test_the_cookie_stays_on_https(guarded: FlaskClient) -> None:
    answer = guarded.post("/sign-in", data={"key": KEY}, base_url="https://localhost")
    assert "Secure" in answer.headers["Set-Cookie"]


def test_a_wrong_key(guarded: FlaskClient) -> None:
    guarded.post("/sign-in", data={"key": "another"})
    answer = guarded.get("/")
    assert answer.status_code == 401
    assert "That key is not one of this service." in answer.text
    assert guarded.post("/sign-in", data={"key": "x" * 600}).status_code == 400
    assert guarded.post("/sign-in", data={"key": "köy"}).status_code == 400


@pytest.mark.parametrize("next_place", ["https://evil.example/", "//evil.example", "/\\evil.example", "evil", "/a\nb"])
def test_signing_in_leads_nowhere_else(next_place: str, guarded: FlaskClient) -> None:
    assert guarded.post("/sign-in", data={"key": KEY, "next": next_place}).location == "/"


def test_another_site_cannot_sign_anybody_in(guarded: FlaskClient) -> None:
    answer = guarded.post("/sign-in", data={"key": KEY}, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.5, "0.50 s"), (3.27, "3.3 s"), (59.96, "1:00"), (125, "2:05"), (3725, "1:02:05"), (0, "0.00 s")],
)
def test_lengths_of_time(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(999, "999 B"), (30_506_391, "30.5 MB"), (64 * 2**30, "68.7 GB")])
def test_sizes(count: Any, words: str) -> None:
    assert format_size(count) == words
