"""The event stream of a batch: everything once, wherever a client goes on; bounded, and cheap however many listen."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from typing import Any, NamedTuple

import httpx
import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from sqlalchemy import Engine, event, text
from werkzeug.test import TestResponse

from api.archive import events
from api.service.health import STREAMS
from shared.store.archive import batches, ends
from shared.store.archive.batches import NewBatch
from shared.values.archive.batches import Work
from tests import factories
from tests.api.archive.conftest import Post, end, fault, feed, films
from tests.api.conftest import Make, Served
from tests.conftest import administer


class Event(NamedTuple):
    """One event as a browser sees it."""

    id: str
    name: str
    data: dict[str, Any]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams look twenty times a second."""
    monkeypatch.setattr(events, "LOOK_EVERY_S", 0.05)


def open_stream(client: FlaskClient, made: dict[str, Any], last: str | None = None) -> TestResponse:
    headers = {} if last is None else {"Last-Event-ID": last}
    return client.get(made["urls"]["events"], headers=headers)


def told(lines: Iterator[str]) -> Iterator[Event]:
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


def lines_of(answer: TestResponse) -> Iterator[str]:
    for chunk in answer.iter_encoded():
        yield from chunk.decode().split("\n")[:-1]


def read(client: FlaskClient, made: dict[str, Any], last: str | None = None) -> list[Event]:
    """Everything that a stream tells until it ends."""
    answer = open_stream(client, made, last)
    assert (answer.status_code, answer.mimetype, answer.headers["Cache-Control"]) == (
        200, "text/event-stream", "no-store",
    )  # fmt: skip
    with answer:
        return list(told(lines_of(answer)))


def jobs_of(found: Sequence[Event]) -> list[tuple[int, str]]:
    return [(one.data["position"], one.data["state"]) for one in found if one.name == "job"]


def test_a_batch_from_its_start_to_its_end(client: FlaskClient, database: Engine, batch: Post) -> None:
    films(database, 3)
    made = batch(cap=2)
    with open_stream(client, made) as answer:
        stream = told(lines_of(answer))
        first = next(stream)
        assert (first.id[:2], first.name, first.data["counts"]) == ("0.", "progress", {"waiting": 3})
        wakes = feed(database, made["id"])
        assert next(stream).data["counts"] == {"queued": 2, "waiting": 1}
        end(database, wakes[1:])
        ended = next(stream)
        assert (ended.id[:2], ended.name, ended.data["position"], ended.data["state"]) == ("1.", "job", 1, "succeeded")
        job = client.get(f"/v1/jobs/{ended.data['job_id']}").json
        assert datetime.fromisoformat(job["finished_at"]) == datetime.fromisoformat(ended.data["ended_at"])
        progress = next(stream)
        assert (progress.data["counts"], progress.data["progress"]["fraction"]) == (
            {"queued": 1, "succeeded": 1, "waiting": 1}, 0.3333,
        )  # fmt: skip
        end(database, wakes[:1], failed=True)
        failed = next(stream)
        assert (failed.data["position"], failed.data["state"], failed.data["code"]) == (0, "failed", "out_of_memory")
        end(database, feed(database, made["id"]))
        rest = list(stream)
    assert jobs_of(rest) == [(2, "succeeded")]
    assert (rest[-1].name, rest[-1].data["state"]) == ("progress", "failed")


def test_resumed_anywhere_nothing_is_lost_or_told_twice(
    app: APIFlask, make_app: Make, database: Engine, batch: Post
) -> None:
    films(database, 6)
    made = batch(cap=None)
    wakes = feed(database, made["id"])
    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(read, app.test_client(), made)
        for wake in wakes:
            time.sleep(0.12)
            end(database, [wake], failed=wake is wakes[2])
        whole = listening.result(30)
    assert sorted(jobs_of(whole)) == [(n, "failed" if n == 2 else "succeeded") for n in range(6)]
    assert len({one.id for one in whole}) == len(whole)
    assert sum(one.name == "progress" for one in whole) > 4
    elsewhere = make_app().test_client()  # another process: it has seen nothing of this
    for at, one in enumerate(whole[:-1]):
        again = read(elsewhere, made, one.id)
        assert jobs_of(again) == jobs_of(whole[at + 1 :])
        assert again[-1] == whole[-1]
        assert len(again) == len(jobs_of(again)) + 1
    assert jobs_of(read(elsewhere, made)) == jobs_of(whole)
    over = open_stream(elsewhere, made, whole[-1].id)
    assert (over.status_code, over.data) == (204, b"")


def test_what_is_tried_again_ends_again(client: FlaskClient, database: Engine, batch: Post) -> None:
    films(database, 2)
    made = batch()
    one, other = feed(database, made["id"])
    end(database, [one], failed=True)
    end(database, [other])
    first = read(client, made)
    assert jobs_of(first) == [(0, "failed"), (1, "succeeded")]
    batches.retry(database, made["id"])
    wakes = feed(database, made["id"])
    with open_stream(client, made, first[-1].id) as answer:
        stream = told(lines_of(answer))
        assert next(stream).data["state"] == "running"
        end(database, wakes)
        assert jobs_of(list(stream)) == [(0, "succeeded")]
    assert jobs_of(read(client, made)) == [(0, "failed"), (1, "succeeded"), (0, "succeeded")]


def test_cancelled_and_refused_films_are_told(client: FlaskClient, database: Engine, batch: Post) -> None:
    films(database, 2)
    made = batch(cap=1)
    feed(database, made["id"])
    batches.cancel(database, made["id"])
    assert jobs_of(read(client, made)) == [(0, "cancelled")]
    other = batch()
    with database.begin() as connection:
        connection.execute(text("UPDATE batches SET work = jsonb_set(work, '{analyses,0,model}', '\"gone\"')"))
    feed(database, other["id"])
    found = read(client, other)
    assert jobs_of(found) == [(0, "refused"), (1, "refused")]
    assert (found[0].data["job_id"], found[0].data["code"]) == (None, "invalid_request")


def test_a_long_history_is_told_whole(
    client: FlaskClient, database: Engine, batch: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More ends than a look brings and than are kept in memory."""
    monkeypatch.setattr("shared.store.archive.ends.MOST", 3)
    monkeypatch.setattr(events, "REMEMBERED", 2)
    films(database, 10)
    made = batch(cap=None)
    wakes = feed(database, made["id"])
    end(database, wakes[:5])
    with open_stream(client, made) as answer:
        stream = told(lines_of(answer))
        assert [next(stream).data["position"] for _ in range(5)] == [0, 1, 2, 3, 4]
        end(database, wakes[5:])
        assert sorted(jobs_of(list(stream))) == [(n, "succeeded") for n in range(5, 10)]


def test_those_who_look_at_once_number_each_end_once(database: Engine, batch: Post) -> None:
    films(database, 20)
    made = batch(cap=None)
    end(database, feed(database, made["id"]))
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda _: ends.look(database, {made["id"]: 0})[made["id"]], range(16)))
    assert {one.ends for one in seen} == {seen[0].ends}
    assert [one.seq for one in seen[0].ends] == list(range(1, 21))
    assert {one.position for one in seen[0].ends} == set(range(20))


def test_refused(client: FlaskClient, database: Engine, batch: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "STREAMS", 1)
    films(database, 1)
    made = batch()
    assert fault(client.get("/v1/batches/bat_none/events"))[:2] == (404, "not_found")
    for last in ("", "1", "1.x", "x.-", "7.-", "9999999999.-", "1.abcdefgh"):
        told_ = fault(open_stream(client, made, last))
        assert told_ == (400, "invalid_request", "/headers/Last-Event-Id", "bad_event_id"), last
    with open_stream(client, made) as held:
        assert next(told(lines_of(held))).name == "progress"
        refused = open_stream(client, made)
        assert fault(refused)[:2] == (503, "model_unavailable")
        assert int(refused.headers["Retry-After"]) > 0
    unread = open_stream(client, made)  # closed before anything of it was read
    unread.close()
    end(database, feed(database, made["id"]))
    assert jobs_of(read(client, made)) == [(0, "succeeded")]


def test_a_quiet_stream_says_that_it_is_there(
    client: FlaskClient, database: Engine, batch: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.1)
    films(database, 1)
    with open_stream(client, batch()) as answer:
        lines = (line for line in lines_of(answer) if line)
        assert next(lines) == "retry: 2000"
        assert [next(lines).partition(":")[0] for _ in range(3)] == ["id", "event", "data"]
        assert [next(lines) for _ in range(2)] == [": still here"] * 2


def test_many_that_listen_look_once(
    app: APIFlask, database: Engine, batch: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LOOK_EVERY_S", 0.2)
    films(database, 1)
    made, other, looks = batch(), batch(), []
    engine = app.extensions["sceneworks"].engine
    event.listen(engine, "before_cursor_execute", lambda *told: looks.append(told[2]) if "INSERT" in told[2] else None)
    with ThreadPoolExecutor(8) as pool:
        listening = [pool.submit(read, app.test_client(), one) for one in (made, other) * 4]
        time.sleep(1.0)
        for one in (made, other):
            end(database, feed(database, one["id"]))
        heard = [one.result(30) for one in listening]
    assert all(jobs_of(found) == [(0, "succeeded")] for found in heard)
    assert all("batch_ends" in statement for statement in looks)
    assert len(looks) <= 2 + 20  # the first of each batch, then five a second


def test_the_database_goes_away(
    make_app: Make, database: Engine, batch: Post, caplog: pytest.LogCaptureFixture
) -> None:
    films(database, 1)
    made, name = batch(), database.url.database
    with open_stream(make_app().test_client(), made) as answer:
        stream = told(lines_of(answer))
        assert next(stream).name == "progress"
        other = database.url.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
        administer(other, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
                   f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")  # fmt: skip
        assert list(stream) == []
        administer(other, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert "events.broken_off" in caplog.text


def test_behind_gunicorn_streams_leave_room_and_are_given_back(served: Served) -> None:
    database = served.database
    videos = [factories.stored(database).id for _ in range(3)]
    assert videos
    params = factories.analysis().params.model_dump(mode="json")
    made = batches.create(database, NewBatch("watched", Work(analyses=(("shots", params),), cap=1)))
    place = f"{served.url}/v1/batches/{made.id}/events"
    with httpx.Client(timeout=20, limits=httpx.Limits(max_connections=100)) as client:
        with ExitStack() as streams:
            for _ in range(STREAMS):
                answer = streams.enter_context(client.stream("GET", place))
                assert answer.status_code == 200
            assert client.get(place).json()["code"] == "model_unavailable"
            assert client.get(f"{served.url}/v1/jobs").status_code == 200
        for _ in videos:  # what is written to closed streams says that they are closed
            end(database, feed(database, made.id))
            time.sleep(1.1)
        with client.stream("GET", place) as answer:
            found = list(told(answer.iter_lines()))
    assert jobs_of(found) == [(n, "succeeded") for n in range(3)]
