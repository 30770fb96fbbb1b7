"""Analyses that look at a part of the video: told in two spellings, checked against the video at once."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import Engine

from shared.store.jobs import jobs
from tests.support import factories

LASTS = 10.01
"""Seconds of the video of `factories.stored`."""


def post_job(client: FlaskClient, database: Engine, analysis: dict[str, Any], query: str = "") -> Any:
    body = {"video_id": factories.add_video(database).id, "analyses": [{"model": "mttr"} | analysis]}
    return client.post(f"/v1/jobs{query}", json=body)


QUERIES = {"queries": ["the big rabbit"]}


def test_a_range_is_two_parameters(client: FlaskClient, database: Engine) -> None:
    (run,) = post_job(client, database, {"params": QUERIES, "range": {"start_s": 1.5, "end_s": 4}}).json["runs"]
    assert (run["params"]["start_s"], run["params"]["end_s"]) == (1.5, 4)
    (run,) = post_job(client, database, {"params": QUERIES, "range": {"start_s": 1.5}}).json["runs"]
    assert (run["params"]["start_s"], run["params"]["end_s"]) == (1.5, None)
    (run,) = post_job(client, database, {"params": QUERIES | {"end_s": LASTS}}).json["runs"]
    assert (run["params"]["start_s"], run["params"]["end_s"]) == (0, LASTS)


def test_both_spellings_are_one_run(client: FlaskClient, database: Engine) -> None:
    video = factories.add_video(database).id
    analyses = [
        {"model": "mttr", "params": QUERIES, "range": {"start_s": 2, "end_s": 3}},
        {"model": "mttr", "params": QUERIES | {"start_s": 2.0, "end_s": 3.0}},
    ]
    assert len(client.post("/v1/jobs", json={"video_id": video, "analyses": analyses}).json["runs"]) == 1


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "/params/queries", "missing"),
    ({"params": {"queries": []}}, "/params/queries", "too_short"),
    ({"params": {"queries": ["a", " "]}}, "/params/queries/1", "string_too_short"),
    ({"params": QUERIES, "range": {"start_s": 4, "end_s": 4}}, "/range", "value_error"),
    ({"params": QUERIES | {"start_s": 4, "end_s": 3}}, "/params", "value_error"),
    ({"params": QUERIES, "range": {"start_s": -1}}, "/range/start_s", "greater_than_equal"),
    ({"params": QUERIES, "range": {"start_s": "1"}}, "/range/start_s", "float_type"),
    ({"params": QUERIES, "range": {"from": 1}}, "/range/from", "unknown_field"),
    ({"params": QUERIES | {"start_s": 1}, "range": {"end_s": 2}}, "/range", "given_twice"),
    ({"model": "clip_it", "range": {"end_s": 2}}, "/range", "no_range"),
    ({"params": QUERIES, "range": {"start_s": LASTS}}, "/range/start_s", "beyond_the_end"),
    ({"params": QUERIES, "range": {"end_s": 10.02}}, "/range/end_s", "beyond_the_end"),
    ({"params": QUERIES | {"end_s": 10.02}}, "/params/end_s", "beyond_the_end"),
]


def test_faults(client: FlaskClient, database: Engine) -> None:
    for analysis, pointer, code in FAULTS:
        for query in ("", "?validate_only=true"):
            answer = post_job(client, database, analysis, query)
            assert (answer.status_code, answer.json["code"]) == (400, "invalid_request"), analysis
            (fault,) = answer.json["errors"]
            assert (fault["pointer"], fault["code"]) == (f"/analyses/0{pointer}", code), analysis
    assert jobs.list_jobs(database, limit=1) == []


def test_a_range_of_no_video(client: FlaskClient) -> None:
    body = {"video_id": "vid_no", "analyses": [{"model": "mttr", "params": QUERIES, "range": {"start_s": 1}}]}
    answer = client.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (404, "/video_id")


def test_needs_depend_on_the_parameters(client: FlaskClient, database: Engine) -> None:
    def runs(**params: Any) -> list[str]:
        answer = post_job(client, database, {"model": "r2plus1d", "params": params})
        return [run["model"] for run in answer.json["runs"]]

    assert runs() == ["r2plus1d"]
    assert runs(per="shot") == ["shots", "r2plus1d"]
    menu = client.get("/v1/models/r2plus1d").json
    assert (menu["needs"], menu["optional_when"]) == (["shots"], {"per": "video"})


def test_the_document_says_which_models_take_a_range(client: FlaskClient) -> None:
    choices = client.get("/openapi.json").json["components"]["schemas"]["AnalysisBody"]["oneOf"]
    said = {choice["properties"]["model"]["const"]: choice for choice in choices}
    assert [name for name, choice in said.items() if "range" not in choice["properties"]] == ["mttr"]
    assert said["mttr"]["required"] == ["model", "params"]
    assert said["clip_it"]["required"] == ["model"]
