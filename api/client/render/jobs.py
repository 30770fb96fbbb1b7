"""What a person sees: progress that moves, tables, and errors that say what to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

from api.client.http import ApiClient, JsonObject
from shared.errors import SceneworksError

ENDED_STATES = {"succeeded", "failed", "cancelled"}
LINE_INTERVAL_S = 2.0
STATE_COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "cancelling": "yellow",
}


class JobProgressDisplay:
    """Shows a job while it runs: bars in a terminal, a line now and then elsewhere."""

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
        """The present state of a job."""
        eta = job["progress"].get("eta_s")
        started = any(run["stages"] for run in job["runs"])
        self._show_waiting(job["state"], started)
        for run in job["runs"]:
            for stage in run["stages"]:
                if stage["state"] != "waiting":
                    self._show_stage(run, stage, eta if stage["state"] == "running" else None)

    def _show_waiting(self, state: str, started: bool) -> None:
        """A moving bar without an end until the first stage is known."""
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
        """A line: the first of its key at once, the next ones now and then, what is done just once."""
        now = time.monotonic()
        last_printed = self._lines.get(key)
        if last_printed is None or (now - last_printed >= LINE_INTERVAL_S and not key.endswith(" done")):
            self._console.print(text, markup=False, highlight=False)
            self._lines[key] = now


def format_stage(stage: JsonObject, eta: float | None) -> str:
    """Such as `1200/3600 frames  412.3/s  6 s to go`."""
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
    """Show a job until it has ended; `wait` is called between looks and may wait."""
    with JobProgressDisplay(console) as display:
        while (job := client.get_job(job_id))["state"] not in ENDED_STATES:
            display.show_job(job)
            wait()
        display.show_job(job)
    return job


def create_upload_bar(console: Console) -> Progress:
    """A bar for bytes."""
    return Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=32),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def build_results_table(results: Iterable[JsonObject]) -> Table:
    """Results as rows with exact times; ends are exclusive."""
    table = Table(header_style="bold", caption="End frames are exclusive.")
    for title in ("model", "kind", "#"):
        table.add_column(title)
    for title in ("start frame", "end frame", "start", "end", "start s", "end s", "length s", "score"):
        table.add_column(title, justify="right")
    table.add_column("data")
    for result in results:
        table.add_row(*_format_result_cells(result))
    return table


def _format_result_cells(result: JsonObject) -> list[str]:
    start, end = result["start"], result["end"]
    times = ["", "", "", "", "", "", ""]
    if start and end:
        times = [
            str(start["frame"]), str(end["frame"]), start["timecode"], end["timecode"],
            f"{start['seconds']:.3f}", f"{end['seconds']:.3f}", f"{end['seconds'] - start['seconds']:.3f}",
        ]  # fmt: skip
    score = "" if result["score"] is None else f"{result['score']:.3f}"
    data = "  ".join(f"{name}={value}" for name, value in result["data"].items())
    return [result.get("model", ""), result["kind"], str(result["seq"]), *times, score, data]


def build_similar_table(answer: JsonObject) -> Table:
    """What is alike, the likest first, and what was not compared."""
    table = Table(header_style="bold", caption=_format_comparison(answer))
    table.add_column("similarity", justify="right")
    for title in ("video", "name"):
        table.add_column(title, overflow="fold")
    for title in ("#", "start", "end", "start s", "end s"):
        table.add_column(title, justify="right")
    for item in answer["items"]:
        start, end = item["start"], item["end"]
        times = (
            [start["timecode"], end["timecode"], f"{start['seconds']:.3f}", f"{end['seconds']:.3f}"] if start else []
        )
        seq_cells = [str(item["seq"])] if start else []
        table.add_row(f"{item['similarity']:.4f}", item["video"]["id"], item["video"]["name"], *seq_cells, *times)
    return table


def _format_comparison(answer: JsonObject) -> str:
    """By which weights, and how many videos have none of these."""
    whole_video, excluded = answer["per"] == "video", answer["left_out"]
    parts = [f"{answer['model']} {answer['weights']['fingerprint'][:12]}"]
    if excluded["other_weights"]:
        parts.append(f"left out, with other weights: {excluded['other_weights']}")
    if excluded["other_per"]:
        parts.append(f"left out, embedded {'per shot' if whole_video else 'as a whole'} only: {excluded['other_per']}")
    return "; ".join(parts)


def build_jobs_table(jobs: Iterable[JsonObject]) -> Table:
    """Jobs, one a row."""
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
    """The runs of one job with their stages."""
    table = Table(header_style="bold", title=f"{job['id']}  {colour_state(job['state'])}", title_justify="left")
    for title in ("model", "state", "attempt", "stage", "how far"):
        table.add_column(title)
    for run in job["runs"]:
        state = run["state"] + (" (reused)" if run.get("reused") else "")
        table.add_row(run["model"], state, str(run["attempt"]), "", "")
        for stage in run["stages"]:
            table.add_row("", "", "", f"{stage['name']} {stage['state']}", format_stage(stage, None))
    return table


def build_models_table(models: Iterable[JsonObject]) -> Table:
    """The menu: a row a parameter."""
    table = Table(header_style="bold")
    for title in ("model", "parameter", "default", "meaning"):
        table.add_column(title)
    for model in models:
        table.add_row(f"[bold]{model['name']}", "", "", model["summary"])
        for name, field in model["params"].get("properties", {}).items():
            table.add_row("", name, str(field.get("default", "")), field.get("description", ""))
    return table


def format_run_errors(job: JsonObject) -> list[str]:
    """What went wrong, a line a run."""
    return [
        f"{run['model']}: {run['error']['code']}: {run['error']['detail']}" for run in job["runs"] if run.get("error")
    ]


def format_error(error: SceneworksError) -> str:
    """An error for a terminal: its code, what it says, and each fault inside the request."""
    lines = [f"{error.code}: {error.detail}"]
    lines += [f"  {fault.pointer}: {fault.detail}" for fault in error.errors]
    return "\n".join(lines)


def colour_state(state: str) -> str:
    """The state in its colour."""
    colour = STATE_COLOURS.get(state)
    return f"[{colour}]{state}[/]" if colour else state


def _format_time(timestamp: Any) -> str:
    return str(timestamp)[:19].replace("T", " ") if timestamp else ""
