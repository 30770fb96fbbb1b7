"""Summarise a video by sentences that say what you are looking for, with the model `clip_it`.

    python examples/ask_question.py video.mp4 "a rabbit wakes up" "somebody falls"

It prints the chosen moments and writes them as one video, `summary.mp4`. A second question about the same video is
answered in seconds, because the features of its frames are stored.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import httpx


def connect() -> httpx.Client:
    """Open a client. SCENEWORKS_URL is the address of the service, SCENEWORKS_API_KEY the key if it asks for one."""
    url = os.environ.get("SCENEWORKS_URL", "http://127.0.0.1:8000")
    key = os.environ.get("SCENEWORKS_API_KEY", "")
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=180)


def call(client: httpx.Client, method: str, path: str, **options: Any) -> dict[str, Any]:
    """Send a request; end the script with the detail of the error if the service refuses."""
    response = client.request(method, path, **options)
    if response.is_error:
        sys.exit(f"{response.json()['code']}: {response.json()['detail']}")
    return dict(response.json())


def save_artifact(client: httpx.Client, url: str, path: Path) -> None:
    """Download a file in chunks, so that its size does not matter."""
    with client.stream("GET", url) as response, path.open("wb") as file:
        response.raise_for_status()
        for chunk in response.iter_bytes():
            file.write(chunk)


def main(path: Path, sentences: list[str]) -> None:
    """Upload, ask, wait, print and download."""
    analysis = {"model": "clip_it", "params": {"sentences": sentences}}
    with connect() as client:
        with path.open("rb") as file:
            video = call(client, "POST", "/v1/videos", params={"name": path.name}, content=file)
        job = call(client, "POST", "/v1/jobs", json={"video_id": video["id"], "analyses": [analysis]})
        while job["state"] in {"queued", "running"}:  # each request waits for up to 25 seconds
            job = call(client, "GET", job["urls"]["self"], params={"wait": 25})
        if job["state"] != "succeeded":
            sys.exit(f"The job {job['id']} has {job['state']}: {job['error']}")
        for moment in call(client, "GET", job["urls"]["results"], params={"kind": "highlight"})["items"]:
            print(f"{moment['start']['timecode']} - {moment['end']['timecode']}  score {moment['score']}")
        for artifact in call(client, "GET", job["urls"]["artifacts"])["items"]:
            if artifact["kind"] == "summary_video":
                save_artifact(client, artifact["urls"]["self"], Path("summary.mp4"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
