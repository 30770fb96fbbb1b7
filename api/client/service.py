"""The HTTP API from the caller's side: one method a call, records in and out, the API's own errors raised again."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx

from shared.errors import FieldError, Internal, SceneworksError, leaves

CHUNK = 1 << 20
CONNECT_S, ANSWER_S = 5.0, 180.0  # an upload is answered after the probe, which may take long
LIKE_PAGE = 200
LOOPBACK = {"127.0.0.1", "localhost", "::1"}

Record = dict[str, Any]
Sent = Callable[[int], None]


class Service:
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
        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        proxies = httpx.URL(self.url).host not in LOOPBACK  # a proxy would look for its own loopback
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=proxies)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def upload(self, path: Path, sent: Sent) -> Record:
        """Send a file, in pieces; `sent` hears of the bytes gone out. The video, old or new."""
        kind = mimetypes.guess_type(path.name)[0] or ""
        headers = {
            "Content-Length": str(path.stat().st_size),
            "Content-Type": kind if kind.startswith("video/") else "application/octet-stream",
        }
        params = {"name": path.name}
        return self._ask("POST", "/v1/videos", params=params, headers=headers, content=_pieces(path, sent))

    def submit(self, video_id: str, analyses: list[Record]) -> Record:
        """Ask for models on a video: the job."""
        body = {"video_id": video_id, "analyses": analyses}
        return self._ask("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": uuid4().hex})

    def job(self, job_id: str) -> Record:
        """A job with its runs and stages."""
        return self._ask("GET", f"/v1/jobs/{job_id}")

    def jobs(self, limit: int, states: str | None) -> list[Record]:
        """The latest jobs, newest first."""
        params: dict[str, str | int] = {"limit": limit} | ({"state": states} if states else {})
        items: list[Record] = self._ask("GET", "/v1/jobs", params=params)["items"]
        return items

    def cancel(self, job_id: str) -> Record:
        """Let go of a job."""
        return self._ask("POST", f"/v1/jobs/{job_id}/cancel")

    def retry(self, job_id: str) -> Record:
        """Try what failed or was cancelled once more."""
        return self._ask("POST", f"/v1/jobs/{job_id}/retry")

    def results(self, job_id: str, limit: int = 500) -> Iterator[Record]:
        """Every result of a job, page after page."""
        token: str | None = None
        while True:
            params: dict[str, str | int] = {"limit": limit} | ({"page_token": token} if token else {})
            page = self._ask("GET", f"/v1/jobs/{job_id}/results", params=params)
            yield from page["items"]
            if not (token := page.get("next_page_token")):
                return

    def artifacts(self, job_id: str) -> list[Record]:
        """The files of a job."""
        items: list[Record] = self._ask("GET", f"/v1/jobs/{job_id}/artifacts")["items"]
        return items

    def similar(self, video_id: str, query: list[tuple[str, str]], limit: int) -> Record:
        """What is most like a video, or the part of it in the query: the answer, with so many items in its list."""
        found = self._similar(video_id, [*query, ("limit", str(min(limit, LIKE_PAGE)))])
        while (token := found["next_page_token"]) and len(found["items"]) < limit:
            rest = min(limit - len(found["items"]), LIKE_PAGE)
            page = self._similar(video_id, [*query, ("limit", str(rest)), ("page_token", token)])
            found = page | {"items": found["items"] + page["items"]}
        return found

    def _similar(self, video_id: str, query: list[tuple[str, str]]) -> Record:
        return self._ask("GET", f"/v1/videos/{video_id}/similar", params=query)

    def models(self) -> list[Record]:
        """The menu."""
        items: list[Record] = self._ask("GET", "/v1/models")["items"]
        return items

    def _ask(self, method: str, path: str, **request: Any) -> Record:
        return _body(self._tell(method, path, **request))

    def _tell(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The answer, whatever is in it."""
        try:
            answer = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise ConnectionError(f"No answer from {self.url}: {error}") from error
        if answer.is_success:
            return answer
        raise problem_of(answer)


def _pieces(path: Path, sent: Sent) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece
            sent(len(piece))


def _body(answer: httpx.Response) -> Record:
    try:
        body: Record = answer.json()
    except ValueError:
        raise ConnectionError(f"{answer.url} does not answer as Sceneworks does") from None
    return body


def problem_of(answer: httpx.Response) -> Exception:
    """The error of the closed list that a problem document stands for."""
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if kind != "application/problem+json":
        return ConnectionError(f"{answer.url} answered {answer.status_code}, and not as Sceneworks does")
    problem = _body(answer)
    fault: type[SceneworksError] = leaves().get(problem["code"], Internal)
    errors = (FieldError(entry["pointer"], entry["code"], entry["detail"]) for entry in problem.get("errors", ()))
    return fault(problem["detail"], errors=tuple(errors))
