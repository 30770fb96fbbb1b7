"""Batches followed over broken streams: events come once each, and the client goes on where it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.client import sse
from api.client.http import ApiClient
from api.client.sse import MAX_RECONNECTS, iter_batch_events
from shared.errors import ModelUnavailable, NotFound
from tests.api.client.scripted_server import Reply, ScriptedServer, problem_reply, stream_reply


@pytest.fixture(autouse=True)
def short_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "RECONNECT_DELAY_S", 0.001)


def format_event(event_id: str, name: str, data: dict[str, Any]) -> str:
    return f"id: {event_id}\nevent: {name}\ndata: {json.dumps(data)}\n\n"


RUNNING = format_event("0-aa", "progress", {"state": "running"})
JOB = format_event("1-aa", "job", {"video_id": "vid_1", "state": "succeeded"})
SUCCEEDED = format_event("1-bb", "progress", {"state": "succeeded"})
REFUSED = problem_reply(503, "model_unavailable", "Too many streams are open.")


def read_event_ids(server: ScriptedServer) -> list[str | None]:
    """`Last-Event-ID` of each request."""
    return [request.headers.get("last-event-id") for request in server.requests]


def test_a_whole_stream(scripted_server: ScriptedServer, api_client: ApiClient) -> None:
    scripted_server.answer(stream_reply(f"retry: 2000\n\n{RUNNING}: still here\n\n{JOB}{SUCCEEDED}"))
    assert list(iter_batch_events(api_client, "bat_1")) == [
        ("progress", {"state": "running"}),
        ("job", {"video_id": "vid_1", "state": "succeeded"}),
        ("progress", {"state": "succeeded"}),
    ]
    (request,) = scripted_server.requests
    assert (request.path, request.headers["accept"]) == ("/v1/batches/bat_1/events", "text/event-stream")
    assert "last-event-id" not in request.headers


@pytest.mark.parametrize("cut", [False, True], ids=["ended", "broken off"])
def test_a_stream_that_stops_is_continued_after_its_last_event(
    cut: bool, scripted_server: ScriptedServer, api_client: ApiClient
) -> None:
    half_event = "id: 1-aa\nevent: job\nda"
    scripted_server.answer(stream_reply(RUNNING + half_event, cut=cut), REFUSED, stream_reply(JOB + SUCCEEDED))
    events = list(iter_batch_events(api_client, "bat_1"))
    assert [name for name, _ in events] == ["progress", "job", "progress"]
    assert read_event_ids(scripted_server) == [None, "0-aa", "0-aa"]


def test_nothing_more_to_send_is_the_end(scripted_server: ScriptedServer, api_client: ApiClient) -> None:
    scripted_server.answer(stream_reply(JOB), Reply(204))
    assert [name for name, _ in iter_batch_events(api_client, "bat_1")] == ["job"]
    assert read_event_ids(scripted_server) == [None, "1-aa"]


def test_a_service_that_stays_away_is_given_up(scripted_server: ScriptedServer, api_client: ApiClient) -> None:
    scripted_server.answer(REFUSED)
    with pytest.raises(ModelUnavailable):
        list(iter_batch_events(api_client, "bat_1"))
    assert len(scripted_server.requests) == MAX_RECONNECTS


def test_every_event_allows_as_many_failures_again(scripted_server: ScriptedServer, api_client: ApiClient) -> None:
    refusals = [REFUSED] * (MAX_RECONNECTS - 1)
    scripted_server.answer(*refusals, stream_reply(RUNNING), *refusals, stream_reply(SUCCEEDED))
    assert len(list(iter_batch_events(api_client, "bat_1"))) == 2


def test_an_unknown_batch_is_not_tried_again(scripted_server: ScriptedServer, api_client: ApiClient) -> None:
    scripted_server.answer(problem_reply(404, "not_found", "There is no such batch."))
    with pytest.raises(NotFound):
        list(iter_batch_events(api_client, "bat_1"))
    assert len(scripted_server.requests) == 1


def test_an_answer_that_is_no_stream_is_a_connection_error(
    scripted_server: ScriptedServer, api_client: ApiClient
) -> None:
    scripted_server.answer(Reply(200, b"<h1>Welcome</h1>", "text/html"))
    with pytest.raises(ConnectionError, match="No answer from"):
        list(iter_batch_events(api_client, "bat_1"))
