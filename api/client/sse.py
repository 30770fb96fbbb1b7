"""Follow a batch by server-sent events (HTML Living Standard, section 9.2), over as many connections as it takes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from httpx_sse import EventSource, ServerSentEvent

from api.client.http import ApiClient, JsonObject
from shared.errors import ModelUnavailable, RateLimited

STREAM_TIMEOUT_S = 60.0
"""A stream that is silent for so long is dead: a live one sends at least a comment every 15 s."""
MAX_RECONNECTS = 5
RECONNECT_DELAY_S = 2.0
NO_CONTENT = 204
ENDED_STATES = {"succeeded", "failed", "cancelled"}


def iter_batch_events(client: ApiClient, batch_id: str) -> Iterator[tuple[str, JsonObject]]:
    """Yield (name, data) of every event of a batch until it has ended, each once.

    A broken stream is opened again with the id of the last event in `Last-Event-ID`; the service goes on after it.

    Raises:
        ConnectionError: no stream brought an event MAX_RECONNECTS times in a row.
    """
    path, last_event_id, failures = f"/v1/batches/{batch_id}/events", "", 0
    while True:
        try:
            for event in _read_events(client, path, last_event_id):
                last_event_id, failures = event.id, 0
                data: JsonObject = json.loads(event.data)
                yield event.event, data
                if event.event == "progress" and data["state"] in ENDED_STATES:
                    return
        except EOFError:
            return
        # The last two are refusals for now: too many streams are open, or too many requests were sent.
        except (ConnectionError, ModelUnavailable, RateLimited):
            failures += 1
            if failures == MAX_RECONNECTS:
                raise
        time.sleep(RECONNECT_DELAY_S)


def _read_events(client: ApiClient, path: str, last_event_id: str) -> Iterator[ServerSentEvent]:
    """Yield the events of one connection. EOFError: the service has nothing more to send after `last_event_id`."""
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if last_event_id:
        headers["Last-Event-ID"] = last_event_id
    with client.open_stream(path, headers, STREAM_TIMEOUT_S) as response:
        if response.status_code == NO_CONTENT:
            raise EOFError
        # The decoder also yields blocks without data, such as `retry:` at the start: the standard drops them.
        yield from (event for event in EventSource(response).iter_sse() if event.data)
