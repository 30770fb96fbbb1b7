"""Search over HTTP: every way to ask, what the answer says of itself, and what is refused."""

from __future__ import annotations

import csv
import json
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from flask.testing import FlaskClient
from sqlalchemy import Engine
from typer.testing import CliRunner

from api.client import http
from api.client.commands import app
from shared.store.jobs import jobs
from shared.store.videos import videos
from shared.values import Artifact, Run, new_id
from tests.api.conftest import ApiServer
from tests.support import factories

A, B, C = "a" * 64, "b" * 64, "c" * 64


def post(client: FlaskClient, **body: Any) -> Any:
    return client.post("/v1/search", json=body)


def similar(client: FlaskClient, run: Run, query: str = "") -> Any:
    return client.get(f"/v1/videos/{run.video_id}/similar?{query}")


def list_neighbours(answer: Any) -> list[tuple[str, int]]:
    assert answer.status_code == 200, answer.json
    return [(item["video"]["id"], item["seq"]) for item in answer.json["items"]]


def fault(answer: Any) -> tuple[int, str, str, str]:
    (told,) = answer.json["errors"]
    return answer.status_code, answer.json["code"], told["pointer"], told["code"]


@pytest.fixture
def runs(database: Engine) -> list[Run]:
    """Three videos, as a whole: the second is nearer to the first than the third is."""
    return [factories.add_embeddings(database, [vector], per="video") for vector in ([1, 0], [1, 1], [-1, 1])]


def test_by_a_whole_video(client: FlaskClient, runs: list[Run]) -> None:
    one, two, three = runs
    answer = similar(client, one)
    assert list_neighbours(answer) == [(two.video_id, 0), (three.video_id, 0)]
    assert [item["similarity"] for item in answer.json["items"]] == [0.707107, -0.707107]
    place = f"/v1/videos/{two.video_id}"
    thumbnail = f"{place}/thumbnail.jpg"
    assert answer.json["items"][0] == {
        "video": {"id": two.video_id, "name": "film.mp4", "urls": {
            "self": place, "media": f"{place}/media", "thumbnail": thumbnail}},
        "run_id": two.id, "seq": 0, "start": None, "end": None, "similarity": 0.707107,
        "urls": {"thumbnail": thumbnail, "keyframe": None},
    }  # fmt: skip
    assert {name: value for name, value in answer.json.items() if name != "items"} == {
        "model": "r2plus1d", "weights": {"fingerprint": A}, "per": "video",
        "query": {"video_id": one.video_id, "run_id": one.id, "seq": None, "start": None, "end": None, "vectors": 1},
        "left_out": {"other_weights": 0, "other_per": 0}, "next_page_token": None,
    }  # fmt: skip
    assert post(client, video_id=one.video_id).json == answer.json
    assert list_neighbours(similar(client, one, "exclude_same_video=false"))[0] == (one.video_id, 0)


def test_by_a_shot_and_by_a_range(client: FlaskClient, database: Engine) -> None:
    archive = Artifact(new_id("art"), "keyframes", "keyframes.zip", "application/zip", "0" * 64, 5)
    query_video = factories.add_embeddings(database, [[1, 0], [0, 1]], seconds=2)
    other = factories.add_embeddings(database, [[0, 1], [1, 0], [1, 1]], keyframes=[archive], seconds=2)
    answer = similar(client, query_video, "seq=1&limit=1")
    assert list_neighbours(answer) == [(other.video_id, 0)]
    item, place = answer.json["items"][0], f"/v1/videos/{other.video_id}"
    assert (item["start"]["seconds"], item["end"]) == (0, {
        "frame": 48, "seconds": 2, "pts": 48000, "timecode": "00:00:02:00"})  # fmt: skip
    assert item["urls"] == {
        "thumbnail": f"{place}/thumbnail.jpg?at=1.000000",
        "keyframe": f"/v1/artifacts/{archive.id}/members/shot_0000_img_1.jpg",
    }
    assert (answer.json["per"], answer.json["query"]["seq"], answer.json["query"]["start"]["frame"]) == ("shot", 1, 48)
    both = similar(client, query_video, "start_s=1&end_s=3&limit=1")
    assert list_neighbours(both) == [(other.video_id, 2)]
    assert both.json["items"][0]["similarity"] == 1
    assert both.json["query"]["vectors"] == 2
    same = post(client, video_id=query_video.video_id, range={"start_s": 1, "end_s": 3.0}, limit=1).json
    assert same["items"] == both.json["items"]
    assert post(client, video_id=query_video.video_id, seq=1, limit=1).json["items"] == answer.json["items"]
    whole = similar(client, query_video, "per=shot")
    assert (list_neighbours(whole)[0], whole.json["query"]["vectors"]) == ((other.video_id, 2), 2)


def test_by_a_vector(client: FlaskClient, runs: list[Run]) -> None:
    answer = post(client, vector=[-1, 3], weights=A)
    assert [place[0] for place in list_neighbours(answer)] == [runs[2].video_id, runs[1].video_id, runs[0].video_id]
    assert answer.json["query"]["video_id"] is None
    assert fault(post(client, vector=[0, 1], weights=B)) == (404, "not_found", "/weights", "not_found")
    assert fault(post(client, vector=[1], weights=A)) == (400, "invalid_request", "/vector", "not_comparable")


def test_only_videos_of_jobs_with_these_labels(client: FlaskClient, runs: list[Run], database: Engine) -> None:
    shown = factories.add_embeddings(database, [[-1, 0]], per="video", labels={"show": "x", "year": "1999"})
    assert list_neighbours(similar(client, runs[0], "label=show:x")) == [(shown.video_id, 0)]
    assert list_neighbours(similar(client, runs[0], "label=show:x&label=year:2000")) == []
    assert list_neighbours(post(client, video_id=runs[0].video_id, labels={"year": "1999"})) == [(shown.video_id, 0)]
    assert fault(similar(client, runs[0], "label=show"))[2:] == ("/query/label", "bad_label")


def test_weights_are_not_mixed_and_what_they_leave_out_is_said(client: FlaskClient, database: Engine) -> None:
    one, two = (factories.add_embeddings(database, [[1, 0]], per="video", weights=weights) for weights in (A, B))
    factories.add_embeddings(database, [[1, 0]])
    answer = similar(client, one)
    assert (list_neighbours(answer), answer.json["weights"]) == ([], {"fingerprint": A})
    assert answer.json["left_out"] == {"other_weights": 1, "other_per": 1}
    refused = post(client, video_id=one.video_id, weights=B)
    assert (refused.status_code, refused.json["code"]) == (409, "conflict")
    assert A in refused.json["detail"]
    factories.add_embeddings(database, [[1, 0]], per="video", weights=A, video_id=two.video_id)
    assert list_neighbours(similar(client, one)) == [(two.video_id, 0)]
    assert similar(client, two).json["weights"] == {"fingerprint": A}
    assert similar(client, two, f"weights={B}").json["left_out"] == {"other_weights": 2, "other_per": 0}


def test_pages_are_stable_while_videos_are_added_and_embedded_anew(client: FlaskClient, database: Engine) -> None:
    query_video, *runs = (
        factories.add_embeddings(database, [[np.cos(angle), np.sin(angle)]], per="video")
        for angle in np.linspace(0, 1.5, 8)
    )
    place, listed = f"/v1/videos/{query_video.video_id}/similar?limit=3", []
    while place:
        answer = client.get(place)
        listed += [video_id for video_id, _ in list_neighbours(answer)]
        place = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
        factories.add_embeddings(database, [[1, 0]], per="video")
        factories.add_embeddings(database, [[0, 1]], per="video", weights=B, video_id=query_video.video_id)
        assert answer.json["weights"] == {"fingerprint": A}  # also after the video has newer ones
    assert listed == [run.video_id for run in runs]


def test_the_pages_of_a_post(client: FlaskClient, runs: list[Run], database: Engine) -> None:
    one, two, three = runs
    first = post(client, video_id=one.video_id, limit=1)
    token = first.json["next_page_token"]
    assert "Link" not in first.headers
    second = post(client, video_id=one.video_id, limit=1, page_token=token)
    assert (list_neighbours(first), list_neighbours(second)) == ([(two.video_id, 0)], [(three.video_id, 0)])
    assert second.json["next_page_token"] is None
    assert fault(post(client, video_id=one.video_id, page_token="W10"))[2:] == ("/page_token", "bad_token")
    jobs_token = client.get("/v1/jobs?limit=1").json["next_page_token"]
    assert fault(similar(client, one, f"page_token={jobs_token}"))[2:] == ("/query/page_token", "bad_token")
    gone = post(client, video_id=two.video_id, page_token=token)  # another video has no such run
    assert (gone.status_code, gone.json["code"]) == (409, "conflict")
    assert "without page_token" in gone.json["detail"]


BODIES: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({}, "/video_id", "one_of"),
    ({"video_id": "vid_1", "vector": [1]}, "/video_id", "one_of"),
    ({"seq": 1}, "/seq", "no_video"),
    ({"vector": [1], "weights": A, "range": {}}, "/range", "no_video"),
    ({"video_id": "vid_1", "seq": 1, "range": {}}, "/range", "given_twice"),
    ({"vector": [1]}, "/weights", "missing"),
    ({"vector": []}, "/vector", "too_short"),
    ({"vector": ["1"]}, "/vector/0", "float_type"),
    ({"video_id": "vid_1", "seq": -1}, "/seq", "greater_than_equal"),
    ({"video_id": "vid_1", "range": {"start_s": 2, "end_s": 1}}, "/range", "value_error"),
    ({"video_id": "vid_1", "per": "film"}, "/per", "literal_error"),
    ({"video_id": "vid_1", "limit": 201}, "/limit", "less_than_equal"),
    ({"video_id": "vid_1", "labels": {"a:b": "c"}}, "/labels/a:b/[key]", "string_pattern_mismatch"),
    ({"video_id": "vid_1", "text": "a rabbit"}, "/text", "unknown_field"),
)
QUERIES = (
    ("start_s=2&end_s=2", "/query/end_s", "ends_too_early"),
    ("seq=0&end_s=2", "/query/seq", "given_twice"),
    ("start_s=nan", "/query/start_s", "finite_number"),
    ("start_s=-1", "/query/start_s", "greater_than_equal"),
    ("sec=1", "/query/sec", "unknown_field"),
    ("start_s=99", "/query/start_s", "no_shots"),
)


def test_faults_have_pointers(client: FlaskClient, database: Engine) -> None:
    shots = factories.add_embeddings(database, [[1, 0]])
    told = [fault(post(client, **body)) for body, _, _ in BODIES]
    told += [fault(similar(client, shots, query)) for query, _, _ in QUERIES]
    assert told == [(400, "invalid_request", *said) for _, *said in (*BODIES, *QUERIES)]


def test_what_is_not_there(client: FlaskClient, database: Engine) -> None:
    bare, shots = factories.add_video(database), factories.add_embeddings(database, [[1, 0]])
    assert fault(post(client, video_id="vid_none")) == (404, "not_found", "/video_id", "not_found")
    assert client.get("/v1/videos/vid_none/similar").status_code == 404
    assert fault(post(client, video_id=shots.video_id, seq=1)) == (404, "not_found", "/seq", "not_found")
    assert fault(similar(client, shots, "seq=1")) == (404, "not_found", "/query/seq", "not_found")
    nothing = client.get(f"/v1/videos/{bare.id}/similar")
    assert (nothing.status_code, nothing.json["code"]) == (409, "conflict")
    assert "run r2plus1d on it" in nothing.json["detail"]
    whole = factories.add_embeddings(database, [[1, 0]], per="video")
    assert "per=shot" in similar(client, whole, "start_s=1").json["detail"]
    videos.delete_video(database, shots.video_id)
    assert list_neighbours(similar(client, whole, "per=shot")) == []


# The command ----------------------------------------------------------------------------------------------------------


def command(served: ApiServer, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--url", served.url, "similar", *arguments])


def test_similar_in_a_terminal(api_server: ApiServer) -> None:
    query_video = factories.add_embeddings(api_server.database, [[1, 0], [0, 1]])
    other = factories.add_embeddings(api_server.database, [[0, 1], [1, 1]], labels={"show": "x"})
    factories.add_embeddings(api_server.database, [[0, 1]], weights=B)
    table = command(api_server, query_video.video_id, "--shot", "1", "--limit", "1")
    assert table.exit_code == 0, table.output
    assert "1.0000" in table.stdout
    assert other.video_id in table.stdout
    assert "r2plus1d aaaaaaaaaaaa; left out, with other weights: 1" in table.stdout
    job_id = jobs.list_jobs(api_server.database, limit=3)[2].id
    rows = list(
        csv.DictReader(command(api_server, job_id, "--start", "0", "--end", "2", "--format", "csv").stdout.splitlines())
    )
    assert [(row["video_id"], row["seq"], row["similarity"]) for row in rows] == [
        (other.video_id, "1", "1.0"), (other.video_id, "0", "0.707107"),
    ]  # fmt: skip
    assert (rows[0]["start_frame"], rows[0]["end_seconds"]) == ("24", "2.0")
    whole = json.loads(
        command(api_server, query_video.video_id, "--per", "shot", "--label", "show:x", "-f", "json").stdout
    )
    assert (len(whole["items"]), whole["weights"]["fingerprint"]) == (2, A)
    lines = command(api_server, query_video.video_id, "--per", "shot", "--label", "show:y", "-f", "jsonl").stdout
    assert lines == ""
    refused = command(api_server, query_video.video_id, "--shot", "9")
    assert (refused.exit_code, refused.stderr.splitlines()[0]) == (
        2, "not_found: This video has no embedding of that number.",
    )  # fmt: skip


def test_a_long_list_is_fetched_page_by_page(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SIMILAR_PAGE_SIZE", 2)
    query_video = factories.add_embeddings(api_server.database, [[1, 0, 0]], weights=C)
    factories.add_embeddings(api_server.database, [[1, at / 10, 0] for at in range(7)], weights=C)
    for limit, seqs in ((5, [0, 1, 2, 3, 4]), (4, [0, 1, 2, 3]), (100, list(range(7)))):
        shown = command(api_server, query_video.video_id, "--shot", "0", "--limit", str(limit), "-f", "jsonl").stdout
        assert [json.loads(line)["seq"] for line in shown.splitlines()] == seqs
