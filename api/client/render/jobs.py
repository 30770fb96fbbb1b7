"""Jobs as tables, and the progress of a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from api.client.http import ApiClient, JsonObject
from api.client.render.tables import colour_state

ENDED_STATES = {"succeeded", "failed", "cancelled"}
LINE_INTERVAL_S = 2.0
"""Seconds between two printed lines about one stage: a log file is read later, and must stay short."""


class JobProgressDisplay:
    """Shows a job while it runs: a bar for each stage in a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=32),
            TextColumn("{task.fields[facts]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._lines: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show_job(self, job: JsonObject) -> None:
        """Show the present state of a job."""
        eta = job["progress"].get("eta_s")
        started = any(run["stages"] for run in job["runs"])
        self._show_waiting(job["state"], started)
        for run in job["runs"]:
            for stage in run["stages"]:
                if stage["state"] != "waiting":
                    self._show_stage(run, stage, eta if stage["state"] == "running" else None)

    def _show_waiting(self, state: str, started: bool) -> None:
        """Show a bar of unknown length until the first stage is known."""
        if self._bars.disable and not started:
            self._print_line(state, state)
        elif not started and not self._tasks:
            self._tasks[""] = self._bars.add_task(state, total=None, facts="waiting for a worker")
        elif started and "" in self._tasks:
            self._bars.remove_task(self._tasks.pop(""))

    def _show_stage(self, run: JsonObject, stage: JsonObject, eta: float | None) -> None:
        name, facts = f"{run['model']} {stage['name']}", format_stage(stage, eta)
        if self._bars.disable:
            self._print_line(f"{name} {stage['state']}", f"{name}: {facts}")
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, facts="")
        total = stage["of"] or (stage["done"] if stage["state"] == "done" else None)
        self._bars.update(self._tasks[name], completed=stage["done"], total=total, facts=facts)

    def _print_line(self, key: str, text: str) -> None:
        """Print a line: the first with its key at once, later ones at intervals, a finished stage once."""
        now = time.monotonic()
        last_printed = self._lines.get(key)
        if last_printed is None or (now - last_printed >= LINE_INTERVAL_S and not key.endswith(" done")):
            self._console.print(text, markup=False, highlight=False)
            self._lines[key] = now


def format_stage(stage: JsonObject, eta: float | None) -> str:
    """Format the progress of a stage, such as `1200/3600 frames  412.3/s  6 s to go`."""
    total = stage["of"] if stage["of"] is not None else "?"
    parts = [f"{stage['done']}/{total} {stage['unit']}s"]
    if stage["per_second"]:
        parts.append(f"{stage['per_second']:g}/s")
    if stage["state"] == "done":
        parts.append(f"in {stage['seconds']:.1f} s")
    elif eta is not None:
        parts.append(f"{eta:.0f} s to go")
    return "  ".join(parts)


def follow_job(client: ApiClient, job_id: str, console: Console, wait: Callable[[], None]) -> JsonObject:
    """Show a job until it has ended; `wait` is called between two requests and sets their pace."""
    with JobProgressDisplay(console) as display:
        while (job := client.get_job(job_id))["state"] not in ENDED_STATES:
            display.show_job(job)
            wait()
        display.show_job(job)
    return job


def build_jobs_table(jobs: Iterable[JsonObject]) -> Table:
    """Build a table of jobs, one in each row."""
    table = Table(header_style="bold")
    for title in ("job", "state", "done", "models", "created", "ended"):
        table.add_column(title, overflow="fold")
    for job in jobs:
        models = ", ".join(run["model"] for run in job["runs"])
        done = f"{job['progress']['fraction']:.0%}"
        state = colour_state(job["state"])
        table.add_row(job["id"], state, done, models, _format_time(job["created_at"]), _format_time(job["finished_at"]))
    return table


def build_runs_table(job: JsonObject) -> Table:
    """Build a table of the runs of one job with their stages."""
    table = Table(header_style="bold", title=f"{job['id']}  {colour_state(job['state'])}", title_justify="left")
    for title in ("model", "state", "attempt", "stage", "how far"):
        table.add_column(title)
    for run in job["runs"]:
        state = run["state"] + (" (reused)" if run.get("reused") else "")
        table.add_row(run["model"], state, str(run["attempt"]), "", "")
        for stage in run["stages"]:
            table.add_row("", "", "", f"{stage['name']} {stage['state']}", format_stage(stage, None))
    return table


def format_run_errors(job: JsonObject) -> list[str]:
    """Format the errors of a job, one line for each failed run."""
    return [
        f"{run['model']}: {run['error']['code']}: {run['error']['detail']}" for run in job["runs"] if run.get("error")
    ]


def _format_time(timestamp: Any) -> str:
    return str(timestamp)[:19].replace("T", " ") if timestamp else ""
