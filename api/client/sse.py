"""Archives from the caller's side: one method a call, as `api.client.http` has them for jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx

from api.client.http import CONNECT_TIMEOUT_S, ApiClient, JsonObject, to_exception
from shared.errors import ModelUnavailable, NotFound, RateLimited

PAGE_SIZE = 500
STREAM_TIMEOUT_S = 60.0
"""A stream that has said nothing for so long is dead: a live one says each 15 s that it is there."""
MAX_RECONNECTS = 5
RECONNECT_DELAY_S = 2.0
NO_CONTENT = 204


class BatchClient(ApiClient):
    """A Sceneworks service, asked about archives."""

    # Sources ---------------------------------------------------------------------------------------------------------

    def list_sources(self) -> list[JsonObject]:
        """Every source, by name."""
        items: list[JsonObject] = self._request_json("GET", "/v1/sources")["items"]
        return items

    def get_source(self, name: str) -> JsonObject:
        """The source of that name or id; NotFound."""
        return _find_by_name(self.list_sources(), name, "source")

    def add_source(self, body: JsonObject) -> JsonObject:
        """Add a folder or a list of files."""
        return self._request_json("POST", "/v1/sources", json=body)

    def remove_source(self, source_id: str) -> None:
        """Forget a source."""
        self._send_request("DELETE", f"/v1/sources/{source_id}")

    def request_scan(self, source_id: str, force: bool) -> JsonObject:
        """Ask for a scan."""
        params = {"force": "true"} if force else {}
        return self._request_json("POST", f"/v1/sources/{source_id}/scan", params=params)

    def iter_source_files(self, source_id: str, state: str | None) -> Iterator[JsonObject]:
        """The files of a source, page after page."""
        return self._iter_pages(f"/v1/sources/{source_id}/files", {"state": state} if state else {})

    # Batches ---------------------------------------------------------------------------------------------------------

    def create_batch(self, body: JsonObject) -> JsonObject:
        """Ask for the same models on many videos."""
        return self._request_json("POST", "/v1/batches", json=body)

    def reprocess_videos(self, body: JsonObject, *, dry_run: bool) -> JsonObject:
        """Bring videos up to date: the batch, or what it would come to."""
        params = {"dry_run": "true"} if dry_run else {}
        return self._request_json("POST", "/v1/reprocess", json=body, params=params)

    def list_batches(self, limit: int, states: str | None) -> list[JsonObject]:
        """The latest batches, newest first."""
        params: dict[str, str | int] = {"limit": limit} | ({"state": states} if states else {})
        items: list[JsonObject] = self._request_json("GET", "/v1/batches", params=params)["items"]
        return items

    def get_batch(self, batch_id: str) -> JsonObject:
        """A batch as it stands."""
        return self._request_json("GET", f"/v1/batches/{batch_id}")

    def iter_batch_items(self, batch_id: str, states: str | None) -> Iterator[JsonObject]:
        """The videos of a batch, page after page."""
        return self._iter_pages(f"/v1/batches/{batch_id}/items", {"state": states} if states else {})

    def control_batch(self, batch_id: str, action: str) -> JsonObject:
        """Pause, resume, cancel or retry a batch."""
        return self._request_json("POST", f"/v1/batches/{batch_id}/{action}")

    def get_batch_diff(self, batch_id: str) -> JsonObject:
        """What a batch has changed in sum; asked again until all of it is compared."""
        while not (diff := self._request_json("GET", f"/v1/batches/{batch_id}/diff", params={"limit": 0}))["complete"]:
            pass  # each call takes its seconds and comes further
        return diff

    def iter_batch_events(self, batch_id: str) -> Iterator[tuple[str, JsonObject]]:
        """(name, data) of every event of a batch until it has ended, once each, over as many streams as it takes.

        Raises:
            ConnectionError: the service stays away.
        """
        last_event_id, failures = "", 0
        while True:
            try:
                for event_id, name, data in self._read_events(f"/v1/batches/{batch_id}/events", last_event_id):
                    last_event_id, failures = event_id, 0
                    yield name, data
                    if name == "progress" and data["state"] in ENDED_STATES:
                        return
            except EOFError:
                return
            except (ConnectionError, ModelUnavailable, RateLimited):
                failures += 1
                if failures == MAX_RECONNECTS:
                    raise
            time.sleep(RECONNECT_DELAY_S)

    def _read_events(self, path: str, last_event_id: str) -> Iterator[tuple[str, str, JsonObject]]:
        """(id, name, data) of the events of one stream (HTML Living Standard, section 9.2.6)."""
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        fields: dict[str, str] = {}
        for line in self._read_stream_lines(path, headers):
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                yield fields["id"], fields["event"], json.loads(fields["data"])
                fields = {}

    def _read_stream_lines(self, path: str, headers: dict[str, str]) -> Iterator[str]:
        timeout = httpx.Timeout(STREAM_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if response.status_code == NO_CONTENT:
                    raise EOFError
                if not response.is_success:
                    response.read()
                    raise to_exception(response)
                yield from response.iter_lines()
        except httpx.TransportError as error:
            raise ConnectionError(f"No answer from {self.url}: {error}") from error

    # Schedules -------------------------------------------------------------------------------------------------------

    def list_schedules(self) -> list[JsonObject]:
        """Every schedule, newest first."""
        return list(self._iter_pages("/v1/schedules", {}))

    def get_schedule(self, name: str) -> JsonObject:
        """The schedule of that name or id; NotFound."""
        return _find_by_name(self.list_schedules(), name, "schedule")

    def add_schedule(self, body: JsonObject) -> JsonObject:
        """Make a schedule."""
        return self._request_json("POST", "/v1/schedules", json=body)

    def replace_schedule(self, schedule_id: str, body: JsonObject) -> JsonObject:
        """Replace what a schedule says."""
        return self._request_json("PUT", f"/v1/schedules/{schedule_id}", json=body)

    def control_schedule(self, schedule_id: str, action: str) -> JsonObject:
        """Pause, resume or run a schedule."""
        return self._request_json("POST", f"/v1/schedules/{schedule_id}/{action}")

    def remove_schedule(self, schedule_id: str) -> None:
        """Forget a schedule."""
        self._send_request("DELETE", f"/v1/schedules/{schedule_id}")

    # Queues ----------------------------------------------------------------------------------------------------------

    def list_queues(self) -> list[JsonObject]:
        """The queue of each model."""
        items: list[JsonObject] = self._request_json("GET", "/v1/queues")["items"]
        return items

    def set_queue_mode(self, model: str, mode: str) -> JsonObject:
        """Pause, drain or open a queue."""
        return self._request_json("PUT", f"/v1/queues/{model}", json={"mode": mode})

    def _iter_pages(self, path: str, params: dict[str, Any]) -> Iterator[JsonObject]:
        token: str | None = None
        while True:
            page = self._request_json(
                "GET", path, params=params | {"limit": PAGE_SIZE} | ({"page_token": token} if token else {})
            )
            yield from page["items"]
            if not (token := page["next_page_token"]):
                return


ENDED_STATES = {"succeeded", "failed", "cancelled"}


def _find_by_name(records: list[JsonObject], name: str, noun: str) -> JsonObject:
    for record in records:
        if name in {record["id"], record["name"]}:
            return record
    raise NotFound(f"There is no {noun} of that name or id.")
