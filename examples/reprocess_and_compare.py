"""Run a model again with other parameters on every video that the service has, and print what changed.

    python examples/reprocess_and_compare.py shots detector=hsv_luv min_shot_frames=40

It first asks for a dry run, which says how many videos are concerned and how long it will take. Videos that have
results by these parameters already are left out. The old results stay readable.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import httpx


def connect() -> httpx.Client:
    """Open a client. SCENEWORKS_URL is the address of the service, SCENEWORKS_API_KEY the key if it asks for one."""
    url = os.environ.get("SCENEWORKS_URL", "http://127.0.0.1:8000")
    key = os.environ.get("SCENEWORKS_API_KEY", "")
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=60)


def call(client: httpx.Client, method: str, path: str, **options: Any) -> dict[str, Any]:
    """Send a request; end the script with the detail of the error if the service refuses."""
    response = client.request(method, path, **options)
    if response.is_error:
        sys.exit(f"{response.json()['code']}: {response.json()['detail']}")
    return dict(response.json())


def read_value(text: str) -> Any:
    """Read a number, `true` or a list as JSON, and anything else as text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def main(model: str, pairs: list[str]) -> None:
    """Dry run, batch, wait, diff."""
    params = {name: read_value(value) for name, _, value in (pair.partition("=") for pair in pairs)}
    body = {"name": f"{model} again", "analyses": [{"model": model, "params": params}]}
    with connect() as client:
        plan = call(client, "POST", "/v1/reprocess", params={"dry_run": True}, json=body)
        print(f"To do: {plan['to_do']['videos']} of {plan['selected']['videos']} videos")
        for estimate in plan["estimates"]:
            seconds = estimate["seconds"]
            print(f"  {estimate['model']}: {estimate['runs']} runs, {seconds['usual'] if seconds else '?'} s of work")
        batch = call(client, "POST", "/v1/reprocess", json=body)
        while batch["state"] in {"queued", "running"}:  # each request waits for up to 25 seconds
            batch = call(client, "GET", batch["urls"]["self"], params={"wait": 25})
        print(f"Batch {batch['id']} {batch['state']}: {batch['counts']}")
        for kind, sums in call(client, "GET", batch["urls"]["diff"])["kinds"].items():
            print(f"{kind}: {sums['before']} before, {sums['after']} after, {sums['changes']}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
