"""What `sceneworks up` and `sceneworks demo` do: run the system in a terminal."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from api.client.http import ApiClient, JsonObject
from api.client.render.jobs import follow_job, format_run_errors
from api.client.render.results import build_results_table
from api.client.render.tables import colour_state
from api.client.render.upload import upload_and_submit
from api.localstack.stack import MAX_FAILURES, LocalStack, interrupt_on_signals
from shared.extras import require_extras

POLL_INTERVAL_S = 0.2


def serve_stack(console: Console, folder: Path, ports: tuple[int, int]) -> None:
    """Run the system until Ctrl-C, SIGTERM or the end of the terminal."""
    require_extras("worker", "local")
    with suppress(KeyboardInterrupt), interrupt_on_signals(), _create_stack(console, folder, ports) as stack:
        _stay_up(console, stack)


def run_shots_demo(
    console: Console, file: Path | None, params: JsonObject, folder: Path, ports: tuple[int, int], key: str
) -> bool:
    """Run the system and one job on it; return whether the job succeeded. In a terminal it stays up until Ctrl-C."""
    require_extras("worker", "local")
    video_path = file or find_sample_clip()
    if not video_path.is_file():
        raise FileNotFoundError(f"There is no file {video_path}")
    succeeded = False
    with suppress(KeyboardInterrupt), interrupt_on_signals(), _create_stack(console, folder, ports) as stack:
        job = _run_shots_job(console, stack, ApiClient(stack.url, key), video_path, params)
        succeeded = job["state"] == "succeeded"
        _print_addresses(console, stack, job["id"])
        if sys.stdin.isatty() and sys.stdout.isatty():
            _stay_up(console, stack)
    return succeeded


def find_sample_clip() -> Path:
    """Return the clip of the package `iscc-samples`: a minute of live action (CC BY 4.0)."""
    import iscc_samples

    clips: list[Path] = iscc_samples.videos("mp4")
    return clips[0]


def _create_stack(console: Console, folder: Path, ports: tuple[int, int]) -> LocalStack:
    console.print(f"Starting Sceneworks in {folder.resolve()} ...", markup=False)
    return LocalStack(folder, lambda line: console.print(line, markup=False), *ports)


def _run_shots_job(
    console: Console, stack: LocalStack, connection: ApiClient, video_path: Path, params: JsonObject
) -> JsonObject:
    with connection as client:
        console.print(f"Finding the shots of {video_path.name}", markup=False)
        job = upload_and_submit(client, video_path, [{"model": "shots", "params": params}], console)

        def supervise_tick() -> None:
            stack.supervise_processes(max_failures=MAX_FAILURES)
            time.sleep(POLL_INTERVAL_S)

        job = follow_job(client, job["id"], console, supervise_tick)
        if job["state"] == "succeeded":
            console.print(build_results_table(client.iter_results(job["id"])))
        _print_summary(console, job)
    return job


def _print_summary(console: Console, job: JsonObject) -> None:
    reused = all(run.get("reused") for run in job["runs"])
    note = " (reused from an earlier run of the same video, model and parameters)" if reused else ""
    console.print(f"Job {job['id']} {colour_state(job['state'])}{note}")
    for line in format_run_errors(job):
        console.print(line, markup=False)


def _print_addresses(console: Console, stack: LocalStack, job_id: str) -> None:
    console.print(f"Page      {stack.url}/\nAPI docs  {stack.url}/docs\nFlower    {stack.flower_url}/")
    console.print(f"Again     sceneworks --url {stack.url} results {job_id}")


def _stay_up(console: Console, stack: LocalStack) -> None:
    console.print(f"Sceneworks is up: {stack.url}/  docs {stack.url}/docs  Flower {stack.flower_url}/")
    console.print("Ctrl-C stops it.")
    try:
        while True:
            stack.supervise_processes()
            time.sleep(POLL_INTERVAL_S)
    finally:
        console.print("Stopping ...")
