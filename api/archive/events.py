"""The event stream of a batch: how it stands whenever that changes, and each end of a job, told once.

Server-sent events (HTML Living Standard, section 9.2). The id of an event says what was told up to there: the number of
the last end, and a mark of the last progress. A stream that begins with such an id (`Last-Event-ID`) goes on exactly
there, in whatever process and however long after.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import BoundedSemaphore, Lock
from typing import Any

from apiflask import APIBlueprint
from flask import Response, current_app
from pydantic import BaseModel, Field
from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError as PoolTimeoutError

from api.errors import problems
from api.service.health import STREAMS, services
from shared.errors import FieldError, InvalidRequest, ModelUnavailable, NotFound
from shared.log import logger
from shared.store.archive import ends
from shared.store.archive.ends import Seen
from shared.values.archive.batches import Batch, End

log = logger(__name__)
bp = APIBlueprint("events", __name__, url_prefix="/v1/batches", tag="Batches")

LOOK_EVERY_S = 1.0
HEARTBEAT_S = 15.0
AGAIN_MS = 2000
"""After so long a client that lost its stream opens another."""
REMEMBERED = 2000
"""Ends of one batch that are kept for streams that are nearly up to date."""
EVENT_ID = re.compile(r"(\d{1,9})\.([0-9a-f]{8}|-)")
NOTHING = "-"
NEVER = 2**31 - 1
STREAM_DOC: dict[int | str, Any] = {
    200: {
        "description": "Events: `progress` (state, counts, progress) whenever that changes, and `job` (position, "
        "video_id, job_id, state, code, ended_at) for each end; a comment each 15 s. The last is a `progress` whose "
        "state is an ended one.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "Nothing more will come after this Last-Event-ID: do not connect again."},
}


class EventHeaders(BaseModel):
    """Where to go on."""

    last_event_id: str | None = Field(None, max_length=64, description="The id of the last event that has arrived.")


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a stream has told: ends up to a number, and the mark of the last progress."""

    seq: int = 0
    mark: str = NOTHING

    def __str__(self) -> str:
        return f"{self.seq}.{self.mark}"

    @staticmethod
    def read(text: str | None) -> Cursor:
        """Inverse of `str`; the start of everything for None. InvalidRequest."""
        if text is None:
            return Cursor()
        parts = EVENT_ID.fullmatch(text)
        if parts is None:
            raise _bad_id()
        return Cursor(int(parts[1]), parts[2])


@dataclass(slots=True)
class Watcher:
    """Looks at the batches that somebody listens to: once a second at all of them, however many listen."""

    engine: Engine
    _streams: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(STREAMS))
    _lock: Lock = field(default_factory=Lock)
    _listening: Counter[str] = field(default_factory=Counter)
    _seen: dict[str, Seen] = field(default_factory=dict)
    _ends: dict[str, deque[End]] = field(default_factory=dict)
    _looked_at: float = float("-inf")

    def join(self, batch_id: str) -> None:
        """A stream begins: the batch is looked at until it leaves. ModelUnavailable when there are too many."""
        if not self._streams.acquire(blocking=False):
            raise ModelUnavailable(f"There are {STREAMS} event streams already: try again later.")
        with self._lock:
            self._listening[batch_id] += 1

    def leave(self, batch_id: str) -> None:
        """A stream is over."""
        with self._lock:
            self._listening[batch_id] -= 1
            if not self._listening[batch_id]:
                for known in (self._listening, self._seen, self._ends):
                    known.pop(batch_id, None)
        self._streams.release()

    def look(self, batch_id: str) -> Seen:
        """The batch as it stood a second ago or later; NotFound."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at >= LOOK_EVERY_S:
                self._looked_at = now  # also of a look that fails: the others do not wait for the database in turn
                self._look({one: self._told(one) for one in self._listening})
            elif batch_id not in self._seen:
                self._look({batch_id: self._told(batch_id)})
            if batch_id not in self._seen:
                raise NotFound("There is no such batch.")
            return self._seen[batch_id]

    def after(self, batch_id: str, seq: int, last: int) -> Iterator[End]:
        """The ends of a batch from one number (exclusive) to another (inclusive)."""
        while seq < last:
            with self._lock:
                near = [end for end in self._ends.get(batch_id, ()) if seq < end.seq <= last]
            if not near or near[0].seq != seq + 1:
                near = [end for end in ends.after(self.engine, batch_id, seq) if end.seq <= last]
            yield from near
            seq = near[-1].seq

    def _told(self, batch_id: str) -> int:
        """Number of the last end that was seen; at the first look only what comes after it is kept."""
        if kept := self._ends.get(batch_id):
            return kept[-1].seq
        return self._seen[batch_id].last if batch_id in self._seen else NEVER

    def _look(self, since: dict[str, int]) -> None:
        found = ends.look(self.engine, since)
        for batch_id in since:
            self._seen.pop(batch_id, None)
        for batch_id, seen in found.items():
            self._seen[batch_id] = seen
            self._ends.setdefault(batch_id, deque(maxlen=REMEMBERED)).extend(seen.ends)


def watcher() -> Watcher:
    """The one of the running app."""
    extensions = current_app.extensions
    found: Watcher = extensions.setdefault("sceneworks.watcher", Watcher(services().engine))
    return found


@bp.get("/<batch_id>/events")
@bp.input(EventHeaders, location="headers", arg_name="headers")
@bp.doc(responses=problems(InvalidRequest, NotFound, ModelUnavailable, also=STREAM_DOC))
def events(batch_id: str, headers: EventHeaders) -> Response:
    """Follow a batch: server-sent events, from the start or from `Last-Event-ID` on.

    A stream holds a thread; when there are too many it is refused at once (503): ask again, or wait with `?wait=`.
    """
    watching, cursor = watcher(), Cursor.read(headers.last_event_id)
    watching.join(batch_id)
    try:
        seen = _first(watching, batch_id, cursor)
    except BaseException:
        watching.leave(batch_id)
        raise
    if seen.batch.state.ended and cursor == Cursor(seen.last, _mark(seen.batch)):
        watching.leave(batch_id)
        return Response(status=204)
    response = Response(_stream(watching, batch_id, cursor), mimetype="text/event-stream")
    response.call_on_close(lambda: watching.leave(batch_id))
    response.headers.update({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
    return response


def _first(watching: Watcher, batch_id: str, cursor: Cursor) -> Seen:
    """The batch at the begin of a stream; NotFound, InvalidRequest for a cursor that it has not come to."""
    seen = watching.look(batch_id)
    if cursor.seq > seen.last:
        raise _bad_id()
    return seen


def _stream(watching: Watcher, batch_id: str, cursor: Cursor) -> Iterator[str]:
    """Everything after the cursor until the batch has ended. A database that is away ends it; the client comes back."""
    yield f"retry: {AGAIN_MS}\n\n"
    try:
        yield from _tell(watching, batch_id, cursor)
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        log.warning("events.broken_off", batch=batch_id, reason=type(error).__name__)
    except NotFound:
        log.info("events.batch_gone", batch=batch_id)


def _tell(watching: Watcher, batch_id: str, cursor: Cursor) -> Iterator[str]:
    spoken = time.monotonic()
    while True:
        seen = watching.look(batch_id)
        for said, told in _news(watching, batch_id, cursor, seen):
            yield said
            cursor, spoken = told, time.monotonic()
        if seen.batch.state.ended:
            return
        if time.monotonic() - spoken >= HEARTBEAT_S:
            yield ": still here\n\n"
            spoken = time.monotonic()
        time.sleep(LOOK_EVERY_S)


def _news(watching: Watcher, batch_id: str, cursor: Cursor, seen: Seen) -> Iterator[tuple[str, Cursor]]:
    """What a stream has not told yet, and what it has told with it. Ends come first: the last word is the state."""
    for end in watching.after(batch_id, cursor.seq, seen.last):
        cursor = Cursor(end.seq, cursor.mark)
        yield _event("job", cursor, end.record()), cursor
    mark = _mark(seen.batch)
    if mark != cursor.mark:
        cursor = Cursor(cursor.seq, mark)
        yield _event("progress", cursor, _progress(seen.batch)), cursor


def _event(name: str, cursor: Cursor, data: dict[str, Any]) -> str:
    return f"id: {cursor}\nevent: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


def _progress(batch: Batch) -> dict[str, Any]:
    names = ("id", "state", "videos", "counts", "progress", "paused_at", "cancelled_at")
    whole = batch.record()
    return {name: whole[name] for name in names}


def _mark(batch: Batch) -> str:
    """What makes one progress another: the state, the counts and the part that is done, but not the time."""
    said = json.dumps([batch.state.value, sorted(batch.counts.items()), round(batch.fraction, 4)])
    return hashlib.sha256(said.encode()).hexdigest()[:8]


def _bad_id() -> InvalidRequest:
    detail = "This Last-Event-ID was not made by this stream."
    return InvalidRequest(detail, errors=(FieldError("/headers/Last-Event-Id", "bad_event_id", detail),))
