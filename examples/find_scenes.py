"""Find the scenes of every video in a folder, with the model `bassl`.

    python examples/find_scenes.py path/to/folder

SCENEWORKS_URL is the address of the service, SCENEWORKS_API_KEY the key where it asks for one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import httpx

SUFFIXES = {".mkv", ".mov", ".mp4", ".webm"}


def connect() -> httpx.Client:
    """Open a client. The time-out is long because an upload is answered only after the file has been examined."""
    url = os.environ.get("SCENEWORKS_URL", "http://127.0.0.1:8000")
    key = os.environ.get("SCENEWORKS_API_KEY", "")
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=180)


def call(client: httpx.Client, method: str, path: str, **options: Any) -> dict[str, Any]:
    """Send a request; end the script with the detail of the error if the service refuses."""
    response = client.request(method, path, **options)
    if response.is_error:
        sys.exit(f"{response.json()['code']}: {response.json()['detail']}")
    return dict(response.json())


def submit_video(client: httpx.Client, path: Path) -> dict[str, Any]:
    """Upload a file and ask for its scenes. The same file again is the same video, and nothing is computed twice."""
    with path.open("rb") as file:
        video = call(client, "POST", "/v1/videos", params={"name": path.name}, content=file)
    return call(client, "POST", "/v1/jobs", json={"video_id": video["id"], "analyses": [{"model": "bassl"}]})


def wait_for_end(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    """Ask until the job has ended; each answer comes at its end, or after 25 seconds."""
    while job["state"] in {"queued", "running"}:
        job = call(client, "GET", job["urls"]["self"], params={"wait": 25})
    return job


def main(folder: Path) -> None:
    """Submit every video first, so that all workers have something to do; then print scenes as the jobs end."""
    with connect() as client:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        for path, submitted in [(path, submit_video(client, path)) for path in paths]:
            job = wait_for_end(client, submitted)
            print(f"{path.name}: {job['state']}")
            for scene in call(client, "GET", job["urls"]["results"], params={"kind": "scene", "limit": 5000})["items"]:
                print(f"  scene {scene['seq']}  {scene['start']['timecode']} - {scene['end']['timecode']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
