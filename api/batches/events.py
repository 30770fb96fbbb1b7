"""The event stream of a batch: its progress whenever that changes, and the end of each job, sent once.

Server-sent events (HTML Living Standard, section 9.2). The id of an event says what was sent up to it: the number
of the last end, and a hash of the last progress. A stream that begins with such an id (`Last-Event-ID`) goes on exactly
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

from api.http.context import STREAMS, get_services
from api.http.problems import document_problems
from shared.errors import InvalidRequest, ModelUnavailable, NotFound
from shared.log import get_logger
from shared.store.batches import event_log
from shared.store.batches.event_log import BatchSnapshot
from shared.values.batches import Batch, BatchEvent

log = get_logger(__name__)
bp = APIBlueprint("events", __name__, url_prefix="/v1/batches", tag="Batches")

POLL_EVERY_S = 1.0
HEARTBEAT_S = 15.0
RECONNECT_MS = 2000
"""After so long a client that lost its stream opens another."""
MAX_CACHED_ENDS = 2000
"""Ends of one batch that are kept for streams that are nearly up to date."""
EVENT_ID = re.compile(r"(\d{1,9})\.([0-9a-f]{8}|-)")
NO_PROGRESS = "-"
MAX_SEQ = 2**31 - 1
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
    """Where a stream continues."""

    last_event_id: str | None = Field(None, max_length=64, description="The id of the last event that has arrived.")


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a stream has sent: ends up to a number, and the hash of the last progress."""

    seq: int = 0
    progress_hash: str = NO_PROGRESS

    def __str__(self) -> str:
        return f"{self.seq}.{self.progress_hash}"

    @staticmethod
    def parse_event_id(text: str | None) -> Cursor:
        """Inverse of `str`; the start of everything for None. InvalidRequest."""
        if text is None:
            return Cursor()
        parts = EVENT_ID.fullmatch(text)
        if parts is None:
            raise _bad_event_id()
        return Cursor(int(parts[1]), parts[2])


@dataclass(slots=True)
class BatchWatcher:
    """Polls the batches that have streams: all of them with one query a second, however many streams there are."""

    engine: Engine
    _streams: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(STREAMS))
    _lock: Lock = field(default_factory=Lock)
    _stream_counts: Counter[str] = field(default_factory=Counter)
    _snapshots: dict[str, BatchSnapshot] = field(default_factory=dict)
    _ends: dict[str, deque[BatchEvent]] = field(default_factory=dict)
    _polled_at: float = float("-inf")

    def add_stream(self, batch_id: str) -> None:
        """Count a new stream, whose batch is polled until it ends; ModelUnavailable when there are too many."""
        if not self._streams.acquire(blocking=False):
            raise ModelUnavailable(f"There are {STREAMS} event streams already: try again later.")
        with self._lock:
            self._stream_counts[batch_id] += 1

    def remove_stream(self, batch_id: str) -> None:
        """Forget a stream, and with the last one what is cached of its batch."""
        with self._lock:
            self._stream_counts[batch_id] -= 1
            if not self._stream_counts[batch_id]:
                for per_batch in (self._stream_counts, self._snapshots, self._ends):
                    per_batch.pop(batch_id, None)
        self._streams.release()

    def poll_batch(self, batch_id: str) -> BatchSnapshot:
        """Get the batch as it was at most a second ago; NotFound."""
        with self._lock:
            now = time.monotonic()
            if now - self._polled_at >= POLL_EVERY_S:
                # Also for a poll that fails: the other streams must not wait for the database one after the other.
                self._polled_at = now
                self._poll_store(
                    {listened_id: self._last_known_seq(listened_id) for listened_id in self._stream_counts}
                )
            elif batch_id not in self._snapshots:
                self._poll_store({batch_id: self._last_known_seq(batch_id)})
            if batch_id not in self._snapshots:
                raise NotFound("There is no such batch.")
            return self._snapshots[batch_id]

    def read_ends(self, batch_id: str, seq: int, last_seq: int) -> Iterator[BatchEvent]:
        """Iterate over the ends of a batch from one number (exclusive) to another (inclusive)."""
        while seq < last_seq:
            with self._lock:
                ends_in_range = [end for end in self._ends.get(batch_id, ()) if seq < end.seq <= last_seq]
            # A stream that is far behind asks for ends that the cache has dropped: they are read from the table.
            if not ends_in_range or ends_in_range[0].seq != seq + 1:
                ends_in_range = [
                    end for end in event_log.list_events(self.engine, batch_id, seq) if end.seq <= last_seq
                ]
            yield from ends_in_range
            seq = ends_in_range[-1].seq

    def _last_known_seq(self, batch_id: str) -> int:
        """Number of the last end that is known; before the first poll a number that no end has."""
        if known_ends := self._ends.get(batch_id):
            return known_ends[-1].seq
        return self._snapshots[batch_id].last_seq if batch_id in self._snapshots else MAX_SEQ

    def _poll_store(self, since: dict[str, int]) -> None:
        snapshots = event_log.poll_batches(self.engine, since)
        for batch_id in since:
            self._snapshots.pop(batch_id, None)
        for batch_id, snapshot in snapshots.items():
            self._snapshots[batch_id] = snapshot
            self._ends.setdefault(batch_id, deque(maxlen=MAX_CACHED_ENDS)).extend(snapshot.events)


def get_watcher() -> BatchWatcher:
    """Get the watcher of the running app."""
    extensions = current_app.extensions
    batch_watcher: BatchWatcher = extensions.setdefault("sceneworks.watcher", BatchWatcher(get_services().engine))
    return batch_watcher


@bp.get("/<batch_id>/events")
@bp.input(EventHeaders, location="headers", arg_name="headers")
@bp.doc(responses=document_problems(InvalidRequest, NotFound, ModelUnavailable, extra=STREAM_DOC))
def stream_events(batch_id: str, headers: EventHeaders) -> Response:
    """Follow a batch: server-sent events, from the start or from `Last-Event-ID` on.

    A stream holds a thread; when there are too many it is refused at once (503): ask again, or wait with `?wait=`.
    """
    batch_watcher, cursor = get_watcher(), Cursor.parse_event_id(headers.last_event_id)
    batch_watcher.add_stream(batch_id)
    try:
        snapshot = _read_first_snapshot(batch_watcher, batch_id, cursor)
    except BaseException:
        batch_watcher.remove_stream(batch_id)
        raise
    if snapshot.batch.state.has_ended and cursor == Cursor(snapshot.last_seq, _hash_progress(snapshot.batch)):
        batch_watcher.remove_stream(batch_id)
        return Response(status=204)
    response = Response(_stream_text(batch_watcher, batch_id, cursor), mimetype="text/event-stream")
    response.call_on_close(lambda: batch_watcher.remove_stream(batch_id))
    response.headers.update({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
    return response


def _read_first_snapshot(batch_watcher: BatchWatcher, batch_id: str, cursor: Cursor) -> BatchSnapshot:
    """Get the batch at the start of a stream; NotFound, InvalidRequest for a cursor beyond its last end."""
    snapshot = batch_watcher.poll_batch(batch_id)
    if cursor.seq > snapshot.last_seq:
        raise _bad_event_id()
    return snapshot


def _stream_text(batch_watcher: BatchWatcher, batch_id: str, cursor: Cursor) -> Iterator[str]:
    """Send everything after the cursor until the batch has ended.

    A database that cannot be reached ends the stream; the client connects again, with the id of its last event.
    """
    yield f"retry: {RECONNECT_MS}\n\n"
    try:
        yield from _follow_batch(batch_watcher, batch_id, cursor)
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        log.warning("events.broken_off", batch=batch_id, reason=type(error).__name__)
    except NotFound:
        log.info("events.batch_gone", batch=batch_id)


def _follow_batch(batch_watcher: BatchWatcher, batch_id: str, cursor: Cursor) -> Iterator[str]:
    last_sent_at = time.monotonic()
    while True:
        snapshot = batch_watcher.poll_batch(batch_id)
        for event_text, next_cursor in _iter_new_events(batch_watcher, batch_id, cursor, snapshot):
            yield event_text
            cursor, last_sent_at = next_cursor, time.monotonic()
        if snapshot.batch.state.has_ended:
            return
        if time.monotonic() - last_sent_at >= HEARTBEAT_S:
            yield ": still here\n\n"
            last_sent_at = time.monotonic()
        time.sleep(POLL_EVERY_S)


def _iter_new_events(
    batch_watcher: BatchWatcher, batch_id: str, cursor: Cursor, snapshot: BatchSnapshot
) -> Iterator[tuple[str, Cursor]]:
    """Iterate over events that were not sent yet, each with the cursor after it.

    Ends come first, so that the last event of a stream is the final state.
    """
    for end in batch_watcher.read_ends(batch_id, cursor.seq, snapshot.last_seq):
        cursor = Cursor(end.seq, cursor.progress_hash)
        yield _format_event("job", cursor, end.to_dict()), cursor
    progress_hash = _hash_progress(snapshot.batch)
    if progress_hash != cursor.progress_hash:
        cursor = Cursor(cursor.seq, progress_hash)
        yield _format_event("progress", cursor, _build_progress(snapshot.batch)), cursor


def _format_event(name: str, cursor: Cursor, data: dict[str, Any]) -> str:
    return f"id: {cursor}\nevent: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


def _build_progress(batch: Batch) -> dict[str, Any]:
    names = ("id", "state", "videos", "counts", "progress", "paused_at", "cancelled_at")
    record = batch.to_dict()
    return {name: record[name] for name in names}


def _hash_progress(batch: Batch) -> str:
    """Hash state, counts and fraction: two progresses that differ in time alone are the same."""
    progress_json = json.dumps([batch.state.value, sorted(batch.counts.items()), round(batch.fraction, 4)])
    return hashlib.sha256(progress_json.encode()).hexdigest()[:8]


def _bad_event_id() -> InvalidRequest:
    return InvalidRequest.at("/headers/Last-Event-Id", "bad_event_id", "This Last-Event-ID is not of this stream.")
