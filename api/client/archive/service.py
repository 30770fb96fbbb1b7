"""Archives from the caller's side: one method a call, as `api.client.service` has them for jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx

from api.client.service import CONNECT_S, Record, Service, problem_of
from shared.errors import ModelUnavailable, NotFound, RateLimited

PAGE = 500
QUIET_S = 60.0
"""A stream that has said nothing for so long is dead: a live one says each 15 s that it is there."""
TRIES = 5
AGAIN_S = 2.0
NOTHING_MORE = 204


class ArchiveService(Service):
    """A Sceneworks service, asked about archives."""

    # Sources ---------------------------------------------------------------------------------------------------------

    def sources(self) -> list[Record]:
        """Every source, by name."""
        items: list[Record] = self._ask("GET", "/v1/sources")["items"]
        return items

    def source(self, name: str) -> Record:
        """The source of that name or id; NotFound."""
        return _named(self.sources(), name, "source")

    def add_source(self, body: Record) -> Record:
        """Add a folder or a list of files."""
        return self._ask("POST", "/v1/sources", json=body)

    def remove_source(self, source_id: str) -> None:
        """Forget a source."""
        self._tell("DELETE", f"/v1/sources/{source_id}")

    def scan(self, source_id: str, force: bool) -> Record:
        """Ask for a scan."""
        params = {"force": "true"} if force else {}
        return self._ask("POST", f"/v1/sources/{source_id}/scan", params=params)

    def files_of(self, source_id: str, state: str | None) -> Iterator[Record]:
        """The files of a source, page after page."""
        return self._pages(f"/v1/sources/{source_id}/files", {"state": state} if state else {})

    # Batches ---------------------------------------------------------------------------------------------------------

    def create_batch(self, body: Record) -> Record:
        """Ask for the same models on many videos."""
        return self._ask("POST", "/v1/batches", json=body)

    def reprocess(self, body: Record, *, dry_run: bool) -> Record:
        """Bring videos up to date: the batch, or what it would come to."""
        params = {"dry_run": "true"} if dry_run else {}
        return self._ask("POST", "/v1/reprocess", json=body, params=params)

    def batches(self, limit: int, states: str | None) -> list[Record]:
        """The latest batches, newest first."""
        params: dict[str, str | int] = {"limit": limit} | ({"state": states} if states else {})
        items: list[Record] = self._ask("GET", "/v1/batches", params=params)["items"]
        return items

    def batch(self, batch_id: str) -> Record:
        """A batch as it stands."""
        return self._ask("GET", f"/v1/batches/{batch_id}")

    def items_of(self, batch_id: str, states: str | None) -> Iterator[Record]:
        """The videos of a batch, page after page."""
        return self._pages(f"/v1/batches/{batch_id}/items", {"state": states} if states else {})

    def tell_batch(self, batch_id: str, verb: str) -> Record:
        """Pause, resume, cancel or retry a batch."""
        return self._ask("POST", f"/v1/batches/{batch_id}/{verb}")

    def batch_diff(self, batch_id: str) -> Record:
        """What a batch has changed in sum; asked again until all of it is compared."""
        while not (found := self._ask("GET", f"/v1/batches/{batch_id}/diff", params={"limit": 0}))["complete"]:
            pass  # each call takes its seconds and comes further
        return found

    def events(self, batch_id: str) -> Iterator[tuple[str, Record]]:
        """(name, data) of every event of a batch until it has ended, once each, over as many streams as it takes.

        Raises:
            ConnectionError: the service stays away.
        """
        last, failed = "", 0
        while True:
            try:
                for event_id, name, data in self._stream(f"/v1/batches/{batch_id}/events", last):
                    last, failed = event_id, 0
                    yield name, data
                    if name == "progress" and data["state"] in ENDED:
                        return
            except EOFError:
                return
            except (ConnectionError, ModelUnavailable, RateLimited):
                failed += 1
                if failed == TRIES:
                    raise
            time.sleep(AGAIN_S)

    def _stream(self, path: str, last: str) -> Iterator[tuple[str, str, Record]]:
        """(id, name, data) of the events of one stream (HTML Living Standard, section 9.2.6)."""
        headers = {"Last-Event-ID": last} if last else {}
        fields: dict[str, str] = {}
        for line in self._lines(path, headers):
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                yield fields["id"], fields["event"], json.loads(fields["data"])
                fields = {}

    def _lines(self, path: str, headers: dict[str, str]) -> Iterator[str]:
        timeout = httpx.Timeout(QUIET_S, connect=CONNECT_S)
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as answer:
                if answer.status_code == NOTHING_MORE:
                    raise EOFError
                if not answer.is_success:
                    answer.read()
                    raise problem_of(answer)
                yield from answer.iter_lines()
        except httpx.TransportError as error:
            raise ConnectionError(f"No answer from {self.url}: {error}") from error

    # Schedules -------------------------------------------------------------------------------------------------------

    def schedules(self) -> list[Record]:
        """Every schedule, newest first."""
        return list(self._pages("/v1/schedules", {}))

    def schedule(self, name: str) -> Record:
        """The schedule of that name or id; NotFound."""
        return _named(self.schedules(), name, "schedule")

    def add_schedule(self, body: Record) -> Record:
        """Make a schedule."""
        return self._ask("POST", "/v1/schedules", json=body)

    def change_schedule(self, schedule_id: str, body: Record) -> Record:
        """Replace what a schedule says."""
        return self._ask("PUT", f"/v1/schedules/{schedule_id}", json=body)

    def tell_schedule(self, schedule_id: str, verb: str) -> Record:
        """Pause, resume or run a schedule."""
        return self._ask("POST", f"/v1/schedules/{schedule_id}/{verb}")

    def remove_schedule(self, schedule_id: str) -> None:
        """Forget a schedule."""
        self._tell("DELETE", f"/v1/schedules/{schedule_id}")

    # Queues ----------------------------------------------------------------------------------------------------------

    def queues(self) -> list[Record]:
        """The queue of each model."""
        items: list[Record] = self._ask("GET", "/v1/queues")["items"]
        return items

    def decide_queue(self, model: str, mode: str) -> Record:
        """Pause, drain or open a queue."""
        return self._ask("PUT", f"/v1/queues/{model}", json={"mode": mode})

    def _pages(self, path: str, params: dict[str, Any]) -> Iterator[Record]:
        token: str | None = None
        while True:
            found = self._ask("GET", path, params=params | {"limit": PAGE} | ({"page_token": token} if token else {}))
            yield from found["items"]
            if not (token := found["next_page_token"]):
                return


ENDED = {"succeeded", "failed", "cancelled"}


def _named(found: list[Record], name: str, what: str) -> Record:
    for one in found:
        if name in {one["id"], one["name"]}:
            return one
    raise NotFound(f"There is no {what} of that name or id.")
