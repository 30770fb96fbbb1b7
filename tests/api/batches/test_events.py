"""The event stream of a batch: everything once, wherever a client goes on; bounded, and cheap however many listen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from threading import Condition
from typing import Any, NamedTuple, Self

import httpx
import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from sqlalchemy import Engine, event, text
from werkzeug.test import TestResponse

from api.batches import events
from api.http.context import STREAMS
from shared.store.batches import batches, event_log
from shared.store.batches.batches import NewBatch
from shared.values.batches import Workload
from tests.api.conftest import ApiServer, MakeApp
from tests.conftest import execute_admin_sql
from tests.support import factories
from tests.support.batches import CreateBatch, add_videos, dispatch_batch, finish_runs, read_fault
from tests.support.waiting import wait_until


class Event(NamedTuple):
    """One event as a browser sees it."""

    id: str
    name: str
    data: dict[str, Any]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams look twenty times a second."""
    monkeypatch.setattr(events, "POLL_EVERY_S", 0.05)


def open_stream(client: FlaskClient, batch: dict[str, Any], last: str | None = None) -> TestResponse:
    headers = {} if last is None else {"Last-Event-ID": last}
    return client.get(batch["urls"]["events"], headers=headers)


def parse_events(lines: Iterator[str]) -> Iterator[Event]:
    """The events of a stream; comments and the pause between two connections are passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith((":", "retry:")):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Event(fields["id"], fields["event"], json.loads(fields["data"]))
            fields = {}


def iter_event_lines(answer: TestResponse) -> Iterator[str]:
    for chunk in answer.iter_encoded():
        yield from chunk.decode().split("\n")[:-1]


def read(client: FlaskClient, batch: dict[str, Any], last: str | None = None) -> list[Event]:
    """Everything that a stream tells until it ends."""
    answer = open_stream(client, batch, last)
    assert (answer.status_code, answer.mimetype, answer.headers["Cache-Control"]) == (
        200, "text/event-stream", "no-store",
    )  # fmt: skip
    with answer:
        return list(parse_events(iter_event_lines(answer)))


def list_job_ends(received: Sequence[Event]) -> list[tuple[int, str]]:
    return [(one.data["position"], one.data["state"]) for one in received if one.name == "job"]


def test_a_batch_from_its_start_to_its_end(client: FlaskClient, database: Engine, create_batch: CreateBatch) -> None:
    add_videos(database, 3)
    batch = create_batch(cap=2)
    with open_stream(client, batch) as answer:
        stream = parse_events(iter_event_lines(answer))
        first = next(stream)
        assert (first.id[:2], first.name, first.data["counts"]) == ("0.", "progress", {"waiting": 3})
        wakes = dispatch_batch(database, batch["id"])
        assert next(stream).data["counts"] == {"queued": 2, "waiting": 1}
        finish_runs(database, wakes[1:])
        ended = next(stream)
        assert (ended.id[:2], ended.name, ended.data["position"], ended.data["state"]) == ("1.", "job", 1, "succeeded")
        job = client.get(f"/v1/jobs/{ended.data['job_id']}").json
        assert datetime.fromisoformat(job["finished_at"]) == datetime.fromisoformat(ended.data["ended_at"])
        progress = next(stream)
        assert (progress.data["counts"], progress.data["progress"]["fraction"]) == (
            {"queued": 1, "succeeded": 1, "waiting": 1}, 0.3333,
        )  # fmt: skip
        finish_runs(database, wakes[:1], failed=True)
        failed = next(stream)
        assert (failed.data["position"], failed.data["state"], failed.data["code"]) == (0, "failed", "out_of_memory")
        finish_runs(database, dispatch_batch(database, batch["id"]))
        rest = list(stream)
    assert list_job_ends(rest) == [(2, "succeeded")]
    assert (rest[-1].name, rest[-1].data["state"]) == ("progress", "failed")


def test_resumed_anywhere_nothing_is_lost_or_told_twice(
    app: APIFlask, make_app: MakeApp, database: Engine, create_batch: CreateBatch
) -> None:
    add_videos(database, 6)
    batch = create_batch(cap=None)
    wakes = dispatch_batch(database, batch["id"])
    with open_stream(app.test_client(), batch) as answer:
        stream = parse_events(iter_event_lines(answer))
        whole = [next(stream)]
        for wake in wakes:
            finish_runs(database, [wake], failed=wake is wakes[2])
            whole.append(next(stream))
            while whole[-1].name != "job":
                whole.append(next(stream))
        whole += stream
    assert sorted(list_job_ends(whole)) == [(n, "failed" if n == 2 else "succeeded") for n in range(6)]
    assert len({one.id for one in whole}) == len(whole)
    assert sum(one.name == "progress" for one in whole) > 4
    elsewhere = make_app().test_client()  # another process: it has seen nothing of this
    for at, one in enumerate(whole[:-1]):
        again = read(elsewhere, batch, one.id)
        assert list_job_ends(again) == list_job_ends(whole[at + 1 :])
        assert again[-1] == whole[-1]
        assert len(again) == len(list_job_ends(again)) + 1
    assert list_job_ends(read(elsewhere, batch)) == list_job_ends(whole)
    over = open_stream(elsewhere, batch, whole[-1].id)
    assert (over.status_code, over.data) == (204, b"")


def test_what_is_tried_again_ends_again(client: FlaskClient, database: Engine, create_batch: CreateBatch) -> None:
    add_videos(database, 2)
    batch = create_batch()
    one, other = dispatch_batch(database, batch["id"])
    finish_runs(database, [one], failed=True)
    finish_runs(database, [other])
    first = read(client, batch)
    assert list_job_ends(first) == [(0, "failed"), (1, "succeeded")]
    batches.retry_batch(database, batch["id"])
    wakes = dispatch_batch(database, batch["id"])
    with open_stream(client, batch, first[-1].id) as answer:
        stream = parse_events(iter_event_lines(answer))
        assert next(stream).data["state"] == "running"
        finish_runs(database, wakes)
        assert list_job_ends(list(stream)) == [(0, "succeeded")]
    assert list_job_ends(read(client, batch)) == [(0, "failed"), (1, "succeeded"), (0, "succeeded")]


def test_cancelled_and_refused_videos_are_told(
    client: FlaskClient, database: Engine, create_batch: CreateBatch
) -> None:
    add_videos(database, 2)
    batch = create_batch(cap=1)
    dispatch_batch(database, batch["id"])
    batches.cancel_batch(database, batch["id"])
    assert list_job_ends(read(client, batch)) == [(0, "cancelled")]
    other = create_batch()
    with database.begin() as connection:
        connection.execute(text("UPDATE batches SET work = jsonb_set(work, '{analyses,0,model}', '\"gone\"')"))
    dispatch_batch(database, other["id"])
    received = read(client, other)
    assert list_job_ends(received) == [(0, "refused"), (1, "refused")]
    assert (received[0].data["job_id"], received[0].data["code"]) == (None, "invalid_request")


def test_a_long_history_is_told_whole(
    client: FlaskClient, database: Engine, create_batch: CreateBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More ends than a look brings and than are kept in memory."""
    monkeypatch.setattr("shared.store.batches.event_log.MAX_EVENTS", 3)
    monkeypatch.setattr(events, "MAX_CACHED_ENDS", 2)
    add_videos(database, 10)
    batch = create_batch(cap=None)
    wakes = dispatch_batch(database, batch["id"])
    finish_runs(database, wakes[:5])
    with open_stream(client, batch) as answer:
        stream = parse_events(iter_event_lines(answer))
        assert [next(stream).data["position"] for _ in range(5)] == [0, 1, 2, 3, 4]
        finish_runs(database, wakes[5:])
        assert sorted(list_job_ends(list(stream))) == [(n, "succeeded") for n in range(5, 10)]


def test_those_who_look_at_once_number_each_end_once(database: Engine, create_batch: CreateBatch) -> None:
    add_videos(database, 20)
    batch = create_batch(cap=None)
    finish_runs(database, dispatch_batch(database, batch["id"]))
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda _: event_log.poll_batches(database, {batch["id"]: 0})[batch["id"]], range(16)))
    assert {one.events for one in seen} == {seen[0].events}
    assert [one.seq for one in seen[0].events] == list(range(1, 21))
    assert {one.position for one in seen[0].events} == set(range(20))


def test_refused(
    client: FlaskClient, database: Engine, create_batch: CreateBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "STREAMS", 1)
    add_videos(database, 1)
    batch = create_batch()
    assert read_fault(client.get("/v1/batches/bat_none/events"))[:2] == (404, "not_found")
    for last in ("", "1", "1.x", "x.-", "7.-", "9999999999.-", "1.abcdefgh"):
        fault = read_fault(open_stream(client, batch, last))
        assert fault == (400, "invalid_request", "/headers/Last-Event-Id", "bad_event_id"), last
    with open_stream(client, batch) as open_answer:
        assert next(parse_events(iter_event_lines(open_answer))).name == "progress"
        refused = open_stream(client, batch)
        assert read_fault(refused)[:2] == (503, "model_unavailable")
        assert int(refused.headers["Retry-After"]) > 0
    unread = open_stream(client, batch)  # closed before anything of it was read
    unread.close()
    finish_runs(database, dispatch_batch(database, batch["id"]))
    assert list_job_ends(read(client, batch)) == [(0, "succeeded")]


def test_a_quiet_stream_says_that_it_is_there(
    client: FlaskClient, database: Engine, create_batch: CreateBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.1)
    add_videos(database, 1)
    with open_stream(client, create_batch()) as answer:
        lines = (line for line in iter_event_lines(answer) if line)
        assert next(lines) == "retry: 2000"
        assert [next(lines).partition(":")[0] for _ in range(3)] == ["id", "event", "data"]
        assert [next(lines) for _ in range(2)] == [": still here"] * 2


class Clock:
    """Stands still until it is moved on."""

    def __init__(self) -> None:
        self._now = 0.0
        self._moved = Condition()
        self._wake_at: list[float] = []
        self._over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._moved:
            self._over = True
            self._moved.notify_all()

    @property
    def asleep(self) -> int:
        """How many wait for a time that has not come."""
        with self._moved:
            return sum(at > self._now for at in self._wake_at)

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        with self._moved:
            wake_at = self._now + seconds
            self._wake_at.append(wake_at)
            self._moved.wait_for(lambda: self._now >= wake_at or self._over)
            self._wake_at.remove(wake_at)
            if self._over:
                raise TimeoutError("the test is over")

    def advance(self, seconds: float) -> None:
        with self._moved:
            self._now += seconds
            self._moved.notify_all()


def test_many_that_listen_look_once(
    app: APIFlask, database: Engine, create_batch: CreateBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(events, "time", clock)
    monkeypatch.setattr(events, "POLL_EVERY_S", 1.0)
    add_videos(database, 1)
    batch, other, looks = create_batch(), create_batch(), []
    engine = app.extensions["sceneworks"].engine
    event.listen(engine, "before_cursor_execute", lambda *args: looks.append(args[2]) if "INSERT" in args[2] else None)
    with ThreadPoolExecutor(8) as pool, clock:
        listening = [pool.submit(read, app.test_client(), one) for one in (batch, other) * 4]
        wait_until("all wait for the next look", lambda: clock.asleep == 8)
        assert len(looks) <= 2  # the first of each batch
        first = len(looks)
        for number in range(1, 6):
            clock.advance(events.POLL_EVERY_S)
            wait_until("all wait for the next look", lambda: clock.asleep == 8)
            assert len(looks) == first + number
        for one in (batch, other):
            finish_runs(database, dispatch_batch(database, one["id"]))
        clock.advance(events.POLL_EVERY_S)
        heard = [one.result(30) for one in listening]
    assert all(list_job_ends(received) == [(0, "succeeded")] for received in heard)
    assert all("batch_ends" in statement for statement in looks)
    assert len(looks) == first + 6


def test_the_database_goes_away(
    make_app: MakeApp, database: Engine, create_batch: CreateBatch, caplog: pytest.LogCaptureFixture
) -> None:
    add_videos(database, 1)
    batch, name = create_batch(), database.url.database
    with open_stream(make_app().test_client(), batch) as answer:
        stream = parse_events(iter_event_lines(answer))
        assert next(stream).name == "progress"
        other = database.url.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
        execute_admin_sql(other, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
                   f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")  # fmt: skip
        assert list(stream) == []
        execute_admin_sql(other, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert "events.broken_off" in caplog.text


def can_open_stream(client: httpx.Client, url: str) -> bool:
    """Whether a stream can be had; it is closed again."""
    with client.stream("GET", url) as answer:
        return answer.status_code == 200


def test_behind_gunicorn_streams_leave_room_and_are_given_back(api_server: ApiServer) -> None:
    database = api_server.database
    videos = [factories.add_video(database).id for _ in range(3)]
    assert videos
    params = factories.make_analysis().params.model_dump(mode="json")
    batch = batches.create_batch(database, NewBatch("watched", Workload(analyses=(("shots", params),), cap=1)))
    place = f"{api_server.url}/v1/batches/{batch.id}/events"
    with httpx.Client(timeout=20, limits=httpx.Limits(max_connections=100)) as client:
        with ExitStack() as streams:
            for _ in range(STREAMS):
                answer = streams.enter_context(client.stream("GET", place))
                assert answer.status_code == 200
            assert client.get(place).json()["code"] == "model_unavailable"
            assert client.get(f"{api_server.url}/v1/jobs").status_code == 200
        for _ in videos[:-1]:  # what is written to closed streams says that they are closed
            finish_runs(database, dispatch_batch(database, batch.id))
        wait_until("a stream is given back", lambda: can_open_stream(client, place))
        finish_runs(database, dispatch_batch(database, batch.id))
        with client.stream("GET", place) as answer:
            received = list(parse_events(answer.iter_lines()))
    assert list_job_ends(received) == [(n, "succeeded") for n in range(3)]
