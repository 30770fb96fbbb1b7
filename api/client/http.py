"""The HTTP API from the caller's side: one method for each request; records are plain JSON objects."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx

from shared.errors import FieldError, Internal, NotFound, SceneworksError, errors_by_code

CHUNK_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 5.0
RESPONSE_TIMEOUT_S = 180.0  # an upload is answered only after the probe, which may take long
PAGE_SIZE = 500
SIMILAR_PAGE_SIZE = 200
LOOPBACK_HOSTS = {"127.0.0.1", "localhost", "::1"}

JsonObject = dict[str, Any]
SentCallback = Callable[[int], None]


class ApiClient:
    """A client of the Sceneworks service at one address.

    Every method raises the error of `shared.errors` that the service answered with, or ConnectionError when there was
    no answer.

    Args:
        url: without the `/v1`.
        key: API key; empty where none is needed.
    """

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(RESPONSE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        # A proxy from the environment would look up a loopback address on its own machine.
        use_proxies = httpx.URL(self.url).host not in LOOPBACK_HOSTS
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=use_proxies)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # Videos and jobs -------------------------------------------------------------------------------------------------

    def upload_video(self, path: Path, report_sent: SentCallback) -> JsonObject:
        """Upload a file in chunks and return its video, which exists already when the same file was uploaded before.

        Args:
            path: the file.
            report_sent: called after each chunk with its number of bytes.
        """
        media_type = mimetypes.guess_type(path.name)[0] or ""
        headers = {
            "Content-Length": str(path.stat().st_size),
            "Content-Type": media_type if media_type.startswith("video/") else "application/octet-stream",
        }
        content = _read_chunks(path, report_sent)
        return self._request_json("POST", "/v1/videos", params={"name": path.name}, headers=headers, content=content)

    def create_job(self, video_id: str, analyses: list[JsonObject]) -> JsonObject:
        """Create a job that runs models on a video."""
        body = {"video_id": video_id, "analyses": analyses}
        return self._request_json("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": uuid4().hex})

    def get_job(self, job_id: str) -> JsonObject:
        """Return a job with its runs and stages."""
        return self._request_json("GET", f"/v1/jobs/{job_id}")

    def list_jobs(self, limit: int, states: str | None) -> list[JsonObject]:
        """Return the latest jobs, newest first. `states` are comma separated."""
        return self._list_items("/v1/jobs", limit=limit, state=states)

    def cancel_job(self, job_id: str) -> JsonObject:
        """Cancel a job."""
        return self._request_json("POST", f"/v1/jobs/{job_id}/cancel")

    def retry_job(self, job_id: str) -> JsonObject:
        """Run again what failed or was cancelled."""
        return self._request_json("POST", f"/v1/jobs/{job_id}/retry")

    def iter_results(self, job_id: str, limit: int = PAGE_SIZE) -> Iterator[JsonObject]:
        """Yield every result of a job, fetched in pages of `limit`."""
        return self._iter_pages(f"/v1/jobs/{job_id}/results", {"limit": limit})

    def list_artifacts(self, job_id: str) -> list[JsonObject]:
        """Return the artifacts of a job."""
        return self._list_items(f"/v1/jobs/{job_id}/artifacts")

    def list_models(self) -> list[JsonObject]:
        """Return the catalog: every model with its parameters."""
        return self._list_items("/v1/models")

    def search_similar(self, video_id: str, query: list[tuple[str, str]], limit: int) -> JsonObject:
        """Search for the neighbours of a video, or of the part of it that the query names.

        Returns:
            The last page of the answer, its `items` replaced by those of all pages, at most `limit`.
        """
        answer = self._request_similar_page(video_id, [*query, ("limit", str(min(limit, SIMILAR_PAGE_SIZE)))])
        while (token := answer["next_page_token"]) and len(answer["items"]) < limit:
            remaining = min(limit - len(answer["items"]), SIMILAR_PAGE_SIZE)
            page = self._request_similar_page(video_id, [*query, ("limit", str(remaining)), ("page_token", token)])
            answer = page | {"items": answer["items"] + page["items"]}
        return answer

    def _request_similar_page(self, video_id: str, query: list[tuple[str, str]]) -> JsonObject:
        return self._request_json("GET", f"/v1/videos/{video_id}/similar", params=query)

    # Sources ---------------------------------------------------------------------------------------------------------

    def list_sources(self) -> list[JsonObject]:
        """Return every source, by name."""
        return self._list_items("/v1/sources")

    def get_source(self, name: str) -> JsonObject:
        """Return the source of that name or id; NotFound."""
        return _find_by_name(self.list_sources(), name, "source")

    def add_source(self, body: JsonObject) -> JsonObject:
        """Add a folder or a list of files as a source."""
        return self._request_json("POST", "/v1/sources", json=body)

    def remove_source(self, source_id: str) -> None:
        """Remove a source; its videos stay."""
        self._send_request("DELETE", f"/v1/sources/{source_id}")

    def request_scan(self, source_id: str, force: bool) -> JsonObject:
        """Request a scan of a source. `force` reads every file again, changed or not."""
        params = {"force": "true"} if force else {}
        return self._request_json("POST", f"/v1/sources/{source_id}/scan", params=params)

    def iter_source_files(self, source_id: str, state: str | None) -> Iterator[JsonObject]:
        """Yield the files of a source, page by page."""
        return self._iter_pages(f"/v1/sources/{source_id}/files", {"state": state})

    # Batches ---------------------------------------------------------------------------------------------------------

    def create_batch(self, body: JsonObject) -> JsonObject:
        """Create a batch: the same models on many videos."""
        return self._request_json("POST", "/v1/batches", json=body)

    def reprocess_videos(self, body: JsonObject, *, dry_run: bool) -> JsonObject:
        """Create a batch that brings videos up to date. With `dry_run`: return the plan, and create nothing."""
        params = {"dry_run": "true"} if dry_run else {}
        return self._request_json("POST", "/v1/reprocess", json=body, params=params)

    def list_batches(self, limit: int, states: str | None) -> list[JsonObject]:
        """Return the latest batches, newest first. `states` are comma separated."""
        return self._list_items("/v1/batches", limit=limit, state=states)

    def get_batch(self, batch_id: str) -> JsonObject:
        """Return a batch with its progress."""
        return self._request_json("GET", f"/v1/batches/{batch_id}")

    def iter_batch_items(self, batch_id: str, states: str | None) -> Iterator[JsonObject]:
        """Yield the videos of a batch with their jobs, page by page."""
        return self._iter_pages(f"/v1/batches/{batch_id}/items", {"state": states})

    def control_batch(self, batch_id: str, action: str) -> JsonObject:
        """Pause, resume, cancel or retry a batch."""
        return self._request_json("POST", f"/v1/batches/{batch_id}/{action}")

    def get_batch_diff(self, batch_id: str) -> JsonObject:
        """Return what a batch has changed, once every video of it is compared."""
        path = f"/v1/batches/{batch_id}/diff"
        # No pause between the requests: the service compares for some seconds within each, and goes on in the next.
        while not (diff := self._request_json("GET", path, params={"limit": 0}))["complete"]:
            pass
        return diff

    # Schedules -------------------------------------------------------------------------------------------------------

    def list_schedules(self) -> list[JsonObject]:
        """Return every schedule, newest first."""
        return list(self._iter_pages("/v1/schedules"))

    def get_schedule(self, name: str) -> JsonObject:
        """Return the schedule of that name or id; NotFound."""
        return _find_by_name(self.list_schedules(), name, "schedule")

    def add_schedule(self, body: JsonObject) -> JsonObject:
        """Create a schedule."""
        return self._request_json("POST", "/v1/schedules", json=body)

    def replace_schedule(self, schedule_id: str, body: JsonObject) -> JsonObject:
        """Replace the whole definition of a schedule."""
        return self._request_json("PUT", f"/v1/schedules/{schedule_id}", json=body)

    def control_schedule(self, schedule_id: str, action: str) -> JsonObject:
        """Pause, resume or run a schedule."""
        return self._request_json("POST", f"/v1/schedules/{schedule_id}/{action}")

    def remove_schedule(self, schedule_id: str) -> None:
        """Delete a schedule; its batches stay."""
        self._send_request("DELETE", f"/v1/schedules/{schedule_id}")

    # Queues ----------------------------------------------------------------------------------------------------------

    def list_queues(self) -> list[JsonObject]:
        """Return the queue of each model."""
        return self._list_items("/v1/queues")

    def set_queue_mode(self, model: str, mode: str) -> JsonObject:
        """Set the mode of a queue: `open`, `paused` or `draining`."""
        return self._request_json("PUT", f"/v1/queues/{model}", json={"mode": mode})

    # Requests --------------------------------------------------------------------------------------------------------

    @contextmanager
    def open_stream(self, path: str, headers: dict[str, str], read_timeout_s: float) -> Iterator[httpx.Response]:
        """Open a GET whose body is read as it arrives; errors as of every other method.

        Args:
            path: below the address of the service.
            headers: of the request.
            read_timeout_s: seconds without a byte after which the stream counts as broken.
        """
        timeout = httpx.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S)
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    response.read()  # the body of a stream is not there until it is read
                    raise to_exception(response)
                yield response
        except httpx.TransportError as error:
            raise ConnectionError(f"No answer from {self.url}: {error}") from error

    def _list_items(self, path: str, **params: str | int | None) -> list[JsonObject]:
        items: list[JsonObject] = self._request_json("GET", path, params=_drop_empty(params))["items"]
        return items

    def _iter_pages(self, path: str, params: dict[str, str | int | None] | None = None) -> Iterator[JsonObject]:
        query: dict[str, str | int | None] = {"limit": PAGE_SIZE, **(params or {})}
        while True:
            page = self._request_json("GET", path, params=_drop_empty(query))
            yield from page["items"]
            if not (token := page["next_page_token"]):
                return
            query["page_token"] = token

    def _request_json(self, method: str, path: str, **options: Any) -> JsonObject:
        return _parse_json(self._send_request(method, path, **options))

    def _send_request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request and return its response, whatever its body; raise the error that a failure stands for."""
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise ConnectionError(f"No answer from {self.url}: {error}") from error
        if response.is_success:
            return response
        raise to_exception(response)


def to_exception(response: httpx.Response) -> Exception:
    """Return the error that a response of failure stands for: that of its problem document, or ConnectionError."""
    media_type = response.headers.get("content-type", "").partition(";")[0]
    if media_type != "application/problem+json":
        return ConnectionError(f"{response.url} answered {response.status_code}, and not as Sceneworks does")
    problem = _parse_json(response)
    # A newer service may have codes that this client does not know.
    error_class: type[SceneworksError] = errors_by_code().get(problem["code"], Internal)
    errors = (FieldError(entry["pointer"], entry["code"], entry["detail"]) for entry in problem.get("errors", ()))
    return error_class(problem["detail"], errors=tuple(errors))


def _read_chunks(path: Path, report_sent: SentCallback) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
            report_sent(len(chunk))


def _parse_json(response: httpx.Response) -> JsonObject:
    try:
        body: JsonObject = response.json()
    except ValueError:
        raise ConnectionError(f"{response.url} does not answer as Sceneworks does") from None
    return body


def _drop_empty(params: dict[str, str | int | None]) -> dict[str, str | int | None]:
    """Leave out parameters without a value: httpx would send them as empty, which the service refuses."""
    return {name: value for name, value in params.items() if value not in {None, ""}}


def _find_by_name(records: list[JsonObject], name: str, noun: str) -> JsonObject:
    for record in records:
        if name in {record["id"], record["name"]}:
            return record
    raise NotFound(f"There is no {noun} of that name or id.")
