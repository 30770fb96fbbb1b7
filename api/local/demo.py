"""`sceneworks up` and `sceneworks demo`: the system in a terminal."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from api.client.commands import send
from api.client.screen import follow, results_table, run_errors, state_word
from api.client.service import Record, Service
from api.local.stack import PATIENCE, Stack, interruptible
from shared.extras import require_extras

LOOK_EVERY_S = 0.2


def serve(console: Console, folder: Path, ports: tuple[int, int]) -> None:
    """Run the system until Ctrl-C, SIGTERM or the end of the terminal."""
    require_extras("worker", "local")
    with suppress(KeyboardInterrupt), interruptible(), _stack(console, folder, ports) as stack:
        _stay(console, stack)


def show(console: Console, file: Path | None, params: Record, folder: Path, ports: tuple[int, int], key: str) -> bool:
    """Run the system and one job on it; whether it succeeded. In a terminal the system stays up until Ctrl-C."""
    require_extras("worker", "local")
    film = file or sample()
    if not film.is_file():
        raise FileNotFoundError(f"There is no file {film}")
    succeeded = False
    with suppress(KeyboardInterrupt), interruptible(), _stack(console, folder, ports) as stack:
        job = _run(console, stack, Service(stack.url, key), film, params)
        succeeded = job["state"] == "succeeded"
        _where(console, stack, job["id"])
        if sys.stdin.isatty() and sys.stdout.isatty():
            _stay(console, stack)
    return succeeded


def sample() -> Path:
    """The clip of the package `iscc-samples`: a minute of live action (CC BY 4.0)."""
    import iscc_samples

    films: list[Path] = iscc_samples.videos("mp4")
    return films[0]


def _stack(console: Console, folder: Path, ports: tuple[int, int]) -> Stack:
    console.print(f"Starting Sceneworks in {folder.resolve()} ...", markup=False)
    return Stack(folder, lambda line: console.print(line, markup=False), *ports)


def _run(console: Console, stack: Stack, at: Service, film: Path, params: Record) -> Record:
    with at as service:
        console.print(f"Finding the shots of {film.name}", markup=False)
        job = send(service, film, [{"model": "shots", "params": params}], console)

        def tick() -> None:
            stack.tend(patience=PATIENCE)
            time.sleep(LOOK_EVERY_S)

        job = follow(service, job["id"], console, tick)
        if job["state"] == "succeeded":
            console.print(results_table(service.results(job["id"])))
        _summary(console, job)
    return job


def _summary(console: Console, job: Record) -> None:
    reused = all(run.get("reused") for run in job["runs"])
    note = " (found by an earlier run of the same film, model and parameters)" if reused else ""
    console.print(f"Job {job['id']} {state_word(job['state'])}{note}")
    for line in run_errors(job):
        console.print(line, markup=False)


def _where(console: Console, stack: Stack, job_id: str) -> None:
    console.print(f"Page      {stack.url}/\nAPI docs  {stack.url}/docs\nFlower    {stack.flower_url}/")
    console.print(f"Again     sceneworks --url {stack.url} results {job_id}")


def _stay(console: Console, stack: Stack) -> None:
    console.print(f"Sceneworks is up: {stack.url}/  docs {stack.url}/docs  Flower {stack.flower_url}/")
    console.print("Ctrl-C stops it.")
    try:
        while True:
            stack.tend()
            time.sleep(LOOK_EVERY_S)
    finally:
        console.print("Stopping ...")
