"""The HTTP API from the caller's side: one method a call, records in and out, the API's own errors raised again."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx

from shared.errors import FieldError, Internal, SceneworksError, errors_by_code

CHUNK_BYTES = 1 << 20
CONNECT_TIMEOUT_S, RESPONSE_TIMEOUT_S = 5.0, 180.0  # an upload is answered after the probe, which may take long
SIMILAR_PAGE_SIZE = 200
LOOPBACK_HOSTS = {"127.0.0.1", "localhost", "::1"}

JsonObject = dict[str, Any]
SentCallback = Callable[[int], None]


class ApiClient:
    """A Sceneworks service at an address.

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
        use_proxies = httpx.URL(self.url).host not in LOOPBACK_HOSTS  # a proxy would look for its own loopback
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=use_proxies)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def upload_video(self, path: Path, report_sent: SentCallback) -> JsonObject:
        """Send a file, in pieces; `report_sent` hears of the bytes gone out. The video, old or new."""
        media_type = mimetypes.guess_type(path.name)[0] or ""
        headers = {
            "Content-Length": str(path.stat().st_size),
            "Content-Type": media_type if media_type.startswith("video/") else "application/octet-stream",
        }
        params = {"name": path.name}
        return self._request_json(
            "POST", "/v1/videos", params=params, headers=headers, content=_read_chunks(path, report_sent)
        )

    def create_job(self, video_id: str, analyses: list[JsonObject]) -> JsonObject:
        """Ask for models on a video: the job."""
        body = {"video_id": video_id, "analyses": analyses}
        return self._request_json("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": uuid4().hex})

    def get_job(self, job_id: str) -> JsonObject:
        """A job with its runs and stages."""
        return self._request_json("GET", f"/v1/jobs/{job_id}")

    def list_jobs(self, limit: int, states: str | None) -> list[JsonObject]:
        """The latest jobs, newest first."""
        params: dict[str, str | int] = {"limit": limit} | ({"state": states} if states else {})
        items: list[JsonObject] = self._request_json("GET", "/v1/jobs", params=params)["items"]
        return items

    def cancel_job(self, job_id: str) -> JsonObject:
        """Let go of a job."""
        return self._request_json("POST", f"/v1/jobs/{job_id}/cancel")

    def retry_job(self, job_id: str) -> JsonObject:
        """Try what failed or was cancelled once more."""
        return self._request_json("POST", f"/v1/jobs/{job_id}/retry")

    def iter_results(self, job_id: str, limit: int = 500) -> Iterator[JsonObject]:
        """Every result of a job, page after page."""
        token: str | None = None
        while True:
            params: dict[str, str | int] = {"limit": limit} | ({"page_token": token} if token else {})
            page = self._request_json("GET", f"/v1/jobs/{job_id}/results", params=params)
            yield from page["items"]
            if not (token := page.get("next_page_token")):
                return

    def list_artifacts(self, job_id: str) -> list[JsonObject]:
        """The files of a job."""
        items: list[JsonObject] = self._request_json("GET", f"/v1/jobs/{job_id}/artifacts")["items"]
        return items

    def search_similar(self, video_id: str, query: list[tuple[str, str]], limit: int) -> JsonObject:
        """What is most like a video, or the part of it in the query: the answer, with so many items in its list."""
        answer = self._request_similar_page(video_id, [*query, ("limit", str(min(limit, SIMILAR_PAGE_SIZE)))])
        while (token := answer["next_page_token"]) and len(answer["items"]) < limit:
            remaining = min(limit - len(answer["items"]), SIMILAR_PAGE_SIZE)
            page = self._request_similar_page(video_id, [*query, ("limit", str(remaining)), ("page_token", token)])
            answer = page | {"items": answer["items"] + page["items"]}
        return answer

    def _request_similar_page(self, video_id: str, query: list[tuple[str, str]]) -> JsonObject:
        return self._request_json("GET", f"/v1/videos/{video_id}/similar", params=query)

    def list_models(self) -> list[JsonObject]:
        """The menu."""
        items: list[JsonObject] = self._request_json("GET", "/v1/models")["items"]
        return items

    def _request_json(self, method: str, path: str, **options: Any) -> JsonObject:
        return _parse_json(self._send_request(method, path, **options))

    def _send_request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer, whatever is in it."""
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise ConnectionError(f"No answer from {self.url}: {error}") from error
        if response.is_success:
            return response
        raise to_exception(response)


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


def to_exception(response: httpx.Response) -> Exception:
    """The error of the closed list that a problem document stands for."""
    media_type = response.headers.get("content-type", "").partition(";")[0]
    if media_type != "application/problem+json":
        return ConnectionError(f"{response.url} answered {response.status_code}, and not as Sceneworks does")
    problem = _parse_json(response)
    error_class: type[SceneworksError] = errors_by_code().get(problem["code"], Internal)
    errors = (FieldError(entry["pointer"], entry["code"], entry["detail"]) for entry in problem.get("errors", ()))
    return error_class(problem["detail"], errors=tuple(errors))
