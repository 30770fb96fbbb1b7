"""What the client sends, and which errors it makes of the answers: against a real HTTP server."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from rich.console import Console

from api.client import http
from api.client.http import ApiClient
from api.client.render.upload import upload_and_submit
from api.client.terminal import format_error
from shared.errors import Conflict, FieldError, Internal, InvalidRequest, NotFound, RateLimited, SceneworksError
from tests.api.client.scripted_server import Reply, ScriptedServer, json_reply, problem_reply


@pytest.mark.parametrize(
    ("status", "code", "error_class"),
    [
        (404, "not_found", NotFound),
        (409, "conflict", Conflict),
        (429, "rate_limited", RateLimited),
        (418, "code_of_a_newer_service", Internal),
    ],
)
def test_a_problem_document_becomes_its_error(
    status: int, code: str, error_class: type[SceneworksError], scripted_server: ScriptedServer, api_client: ApiClient
) -> None:
    scripted_server.answer(problem_reply(status, code, "In words."))
    with pytest.raises(error_class, match=r"^In words\.$") as caught:
        api_client.get_job("job_1")
    assert type(caught.value) is error_class


def test_faults_inside_a_request_keep_their_pointers(scripted_server: ScriptedServer, api_client: ApiClient) -> None:
    fault = {"pointer": "/analyses/0/model", "code": "unknown_model", "detail": "There is no model x."}
    scripted_server.answer(problem_reply(400, "invalid_request", "One fault.", errors=[fault]))
    with pytest.raises(InvalidRequest) as caught:
        api_client.create_job("vid_1", [{"model": "x"}])
    assert caught.value.errors == (FieldError("/analyses/0/model", "unknown_model", "There is no model x."),)
    assert format_error(caught.value) == "invalid_request: One fault.\n  /analyses/0/model: There is no model x."


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(502, b"<h1>Bad gateway</h1>", "text/html"), "answered 502, and not as Sceneworks does"),
        (Reply(200, b"<h1>Welcome</h1>", "text/html"), "does not answer as Sceneworks does"),
        (Reply(500, b"no JSON", "application/problem+json"), "does not answer as Sceneworks does"),
    ],
)
def test_an_answer_of_something_else_is_a_connection_error(
    reply: Reply, words: str, scripted_server: ScriptedServer, api_client: ApiClient
) -> None:
    scripted_server.answer(reply)
    with pytest.raises(ConnectionError, match=words):
        api_client.list_models()


def test_no_answer_is_a_connection_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with ApiClient(f"http://127.0.0.1:{port}") as client, pytest.raises(ConnectionError, match="No answer from"):
        client.get_batch("bat_1")


def test_the_key_is_sent_and_every_job_has_an_idempotency_key_of_its_own(
    scripted_server: ScriptedServer, api_client: ApiClient
) -> None:
    scripted_server.answer(json_reply({"id": "job_1"}))
    for _ in range(2):
        api_client.create_job("vid_1", [])
    assert [request.headers["authorization"] for request in scripted_server.requests] == ["Bearer the key"] * 2
    assert len({request.headers["idempotency-key"] for request in scripted_server.requests}) == 2


def test_pages_are_followed_to_the_last(scripted_server: ScriptedServer, api_client: ApiClient) -> None:
    scripted_server.answer(
        json_reply({"items": [{"seq": 0}, {"seq": 1}], "next_page_token": "a b"}),
        json_reply({"items": [{"seq": 2}], "next_page_token": None}),
    )
    assert [result["seq"] for result in api_client.iter_results("job_1", limit=2)] == [0, 1, 2]
    assert [request.path for request in scripted_server.requests] == [
        "/v1/jobs/job_1/results?limit=2", "/v1/jobs/job_1/results?limit=2&page_token=a+b",
    ]  # fmt: skip


def test_options_without_a_value_are_not_sent(scripted_server: ScriptedServer, api_client: ApiClient) -> None:
    scripted_server.answer(json_reply({"items": [], "next_page_token": None}))
    api_client.list_batches(5, None)
    api_client.list_batches(5, "failed")
    list(api_client.iter_batch_items("bat_1", None))
    assert [request.path for request in scripted_server.requests] == [
        "/v1/batches?limit=5", "/v1/batches?limit=5&state=failed", "/v1/batches/bat_1/items?limit=500",
    ]  # fmt: skip


def test_names_and_ids_find_a_source(scripted_server: ScriptedServer, api_client: ApiClient) -> None:
    scripted_server.answer(json_reply({"items": [{"id": "src_1", "name": "show"}, {"id": "src_2", "name": "other"}]}))
    assert api_client.get_source("other")["id"] == api_client.get_source("src_2")["id"] == "src_2"
    with pytest.raises(NotFound, match="There is no source"):
        api_client.get_source("none")


def test_a_diff_is_requested_until_it_is_complete(scripted_server: ScriptedServer, api_client: ApiClient) -> None:
    scripted_server.answer(*[json_reply({"complete": complete}) for complete in (False, False, True)])
    assert api_client.get_batch_diff("bat_1") == {"complete": True}
    assert len(scripted_server.requests) == 3


@pytest.mark.parametrize(("name", "media_type"), [("a b.mp4", "video/mp4"), ("notes.txt", "application/octet-stream")])
def test_an_upload_reports_every_chunk(
    name: str, media_type: str, scripted_server: ScriptedServer, api_client: ApiClient, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(bytes(2 * http.CHUNK_BYTES + 7))
    scripted_server.answer(json_reply({"id": "vid_1"}, 201))
    sent: list[int] = []
    assert api_client.upload_video(path, sent.append) == {"id": "vid_1"}
    assert sent == [http.CHUNK_BYTES, http.CHUNK_BYTES, 7]
    (request,) = scripted_server.requests
    assert (len(request.body), request.headers["content-type"]) == (path.stat().st_size, media_type)
    assert request.path == f"/v1/videos?name={name.replace(' ', '+')}"


def test_an_upload_is_followed_by_its_job(
    scripted_server: ScriptedServer, api_client: ApiClient, tmp_path: Path
) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(b"video")
    scripted_server.answer(json_reply({"id": "vid_1"}, 201), json_reply({"id": "job_1"}, 201))
    console = Console(force_terminal=True, width=100, record=True)
    assert upload_and_submit(api_client, path, [{"model": "shots"}], console) == {"id": "job_1"}
    assert b'"video_id":"vid_1"' in scripted_server.requests[1].body
    assert "5/5 bytes" in console.export_text()
