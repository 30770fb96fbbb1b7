"""Scenes through the API and on the page as the server draws it: the published form, another threshold, refusals."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from shared.values import Job
from tests.api.conftest import finish_scenes, finish_shots
from tests.support import factories

BOUNDS = ((0, 24), (24, 48), (50, 72), (72, 120), (120, 240))
"""Between the second shot and the third lies a gradual change of two frames."""
PROBABILITIES = (0.1, 0.9, 0.8, 0.55, 0.95)
"""The third is no boundary at a threshold of 0.8: it is not above."""


def asked(database: Engine, *models: str) -> Job:
    """A job whose shots are found."""
    job = factories.create_job(database, analyses=tuple(factories.make_analysis(model) for model in models))
    finish_shots(database, job, [factories.make_timeline(240).time_range(*bound) for bound in BOUNDS])
    return job


def found(database: Engine, *models: str) -> Job:
    """One whose scenes are found, too."""
    job = asked(database, *models)
    for model in models:
        shots = [factories.make_timeline(240).time_range(*bound) for bound in BOUNDS]
        finish_scenes(database, job, model, shots, PROBABILITIES)
    return job


def published(client: FlaskClient, job: Job, query: str = "") -> Any:
    answer = client.get(f"/v1/jobs/{job.id}/results?format=modelscope{query}")
    assert answer.status_code == 200, answer.json
    return answer.json


def test_the_published_form(client: FlaskClient, database: Engine) -> None:
    """Its keys, its inclusive last frames, its time stamps to the millisecond (here a frame lasts 1001/24000 s)."""
    shots = [
        {"frame": ["0", "23"], "timestamps": ["00:00:00.000", "00:00:01.001"]},
        {"frame": ["24", "47"], "timestamps": ["00:00:01.001", "00:00:02.002"]},
        {"frame": ["50", "71"], "timestamps": ["00:00:02.085", "00:00:03.003"]},
        {"frame": ["72", "119"], "timestamps": ["00:00:03.003", "00:00:05.005"]},
        {"frame": ["120", "239"], "timestamps": ["00:00:05.005", "00:00:10.010"]},
    ]
    assert published(client, found(database, "bassl"), "&model=bassl") == {
        "shot_num": 5,
        "shot_meta_list": shots,
        "scene_num": 2,
        "scene_meta_list": [
            {"shot": ["0000", "0001"], "frame": ["0", "47"], "timestamps": ["00:00:00.000", "00:00:02.002"]},
            {
                "shot": ["0002", "0003", "0004"],
                "frame": ["50", "239"],
                "timestamps": ["00:00:02.085", "00:00:10.010"],
            },
        ],
    }


@pytest.mark.parametrize(
    ("query", "lasts"),
    [
        ("&model=bassl", [1, 4]),
        ("&model=scrl", [1, 2, 3, 4]),
        ("&model=bassl&threshold=0.7999", [1, 2, 4]),
        ("&model=bassl&threshold=0.55", [1, 2, 4]),
        ("&model=scrl&threshold=0", [0, 1, 2, 3, 4]),
        ("&model=scrl&threshold=1", [4]),
    ],
)
def test_each_model_has_its_threshold_and_may_have_another(
    query: str, lasts: list[int], client: FlaskClient, database: Engine
) -> None:
    scenes = published(client, found(database, "bassl", "scrl"), query)["scene_meta_list"]
    assert [int(scene["shot"][-1]) for scene in scenes] == lasts


def test_the_model_may_be_left_open_where_there_is_one(client: FlaskClient, database: Engine) -> None:
    assert published(client, found(database, "scrl"))["scene_num"] == 4


def refused(client: FlaskClient, job: Job, query: str) -> tuple[str, str]:
    answer = client.get(f"/v1/jobs/{job.id}/results?{query}")
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")
    (fault,) = answer.json["errors"]
    return fault["pointer"], answer.json["detail"]


def test_a_job_with_two_models_asks_which(client: FlaskClient, database: Engine) -> None:
    """Also while one of them is at work: the answer does not change under a caller."""
    job = asked(database, "bassl", "scrl")
    shots = [factories.make_timeline(240).time_range(*bound) for bound in BOUNDS]
    finish_scenes(database, job, "scrl", shots, PROBABILITIES)
    assert refused(client, job, "format=modelscope") == (
        "/query/model", "Several models of this job have results in a published form: bassl, scrl.",
    )  # fmt: skip
    assert refused(client, job, "format=modelscope&model=bassl") == (
        "/query/format", "This job has no finished run with results in a published form.",
    )  # fmt: skip
    assert published(client, job, "&model=scrl")["scene_num"] == 4


def test_no_scenes(client: FlaskClient, database: Engine) -> None:
    job = factories.create_job(database)
    assert refused(client, job, "format=modelscope")[0] == "/query/format"
    assert refused(client, job, "format=modelscope&model=shots")[0] == "/query/model"
    assert refused(client, job, "format=modelscope&model=bassl")[0] == "/query/model"


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("format=xml", "format"),
        ("format=csv&limit=5", "limit"),
        ("format=edl&threshold=0.5", "threshold"),
        ("format=modelscope&threshold=1.1", "threshold"),
        ("format=modelscope&threshold=nan", "threshold"),
        ("format=modelscope&limit=5", "limit"),
        ("format=modelscope&kind=scene", "kind"),
        ("threshold=0.4", "threshold"),
    ],
)
def test_what_has_no_meaning_is_refused(query: str, pointer: str, client: FlaskClient, database: Engine) -> None:
    assert refused(client, found(database, "bassl"), query)[0] == f"/query/{pointer}"


def test_the_rows_are_results_like_others(client: FlaskClient, database: Engine) -> None:
    job = found(database, "bassl")
    items = client.get(f"/v1/jobs/{job.id}/results?kind=scene").json["items"]
    assert [(item["data"]["shots"], item["start"]["frame"], item["end"]["frame"]) for item in items] == [
        ([0, 1], 0, 48), ([2, 4], 50, 240),
    ]  # fmt: skip
    assert [item["score"] for item in items] == pytest.approx([0.9, 0.95])


def test_the_document_tells_the_published_form(client: FlaskClient, database: Engine) -> None:
    """What is answered is what the document says."""
    operation = client.get("/openapi.json").json["paths"]["/v1/jobs/{job_id}/results"]["get"]
    parameters = {parameter["name"]: parameter["schema"] for parameter in operation["parameters"]}
    assert parameters["format"]["enum"][::9] == ["json", "modelscope"]
    assert (parameters["threshold"]["minimum"], parameters["threshold"]["maximum"]) == (0, 1)
    page, form, *_ = operation["responses"]["200"]["content"]["application/json"]["schema"]["oneOf"]
    assert page == {"$ref": "#/components/schemas/ResultPage"}
    answer = published(client, found(database, "bassl"))
    assert set(answer) == set(form["properties"]) == set(form["required"])
    assert set(answer["scene_meta_list"][0]) == set(form["properties"]["scene_meta_list"]["items"]["required"])


def rows(html: str) -> list[list[str]]:
    """Words in the cells of the list of scenes."""
    body = html.partition('id="scene-list"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    found = re.findall(r"<tr>(.*?)</tr>", body, flags=re.DOTALL)
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in found]


def test_the_page_lists_the_scenes_without_scripts(client: FlaskClient, database: Engine) -> None:
    job = found(database, "bassl", "scrl")
    html = client.get(f"/jobs/{job.id}").text
    assert rows(html) == [
        ["1", "00:00:00:00", "2.0 s", "1 to 2", "0.900"],
        ["2", "00:00:02:02", "7.9 s", "3 to 5", "0.950"],
    ]
    assert "2 scenes</h2>" in html
    assert re.search(r'href="/v1/videos/\w+/media#t=0.000000,2.002000"', html)
    (other,) = [run for run in job.runs if run.model == "scrl"]
    html = client.get(f"/jobs/{job.id}?scenes={other.id}").text
    assert [row[3] for row in rows(html)] == ["1 to 2", "3", "4", "5"]
    assert f'data-run="{other.id}" data-model="scrl" data-threshold="0.5" aria-current="true"' in html


def test_a_page_without_scenes(client: FlaskClient, database: Engine) -> None:
    for job in (asked(database, "bassl"), factories.create_job(database)):
        html = client.get(f"/jobs/{job.id}").text
        assert 'id="scenes-place"' in html
        assert 'id="scenes"' not in html


def test_the_end_of_the_video_closes_the_last_scene(client: FlaskClient, database: Engine) -> None:
    job = asked(database, "bassl")
    shots = [factories.make_timeline(240).time_range(*bound) for bound in BOUNDS]
    finish_scenes(database, job, "bassl", shots, [0.0] * len(shots))
    html = client.get(f"/jobs/{job.id}").text
    assert rows(html) == [["1", "00:00:00:00", "10.0 s", "1 to 5", "end of the video"]]
    assert "1 scene</h2>" in html
