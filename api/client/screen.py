"""What a person sees: progress that moves, tables, and errors that say what to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

from api.client.service import Record, Service
from shared.errors import SceneworksError

ENDED = {"succeeded", "failed", "cancelled"}
LINE_EVERY_S = 2.0
COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "cancelling": "yellow"}


class Follower:
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

    def show(self, job: Record) -> None:
        """The present state of a job."""
        eta = job["progress"].get("eta_s")
        started = any(run["stages"] for run in job["runs"])
        self._waiting(job["state"], started)
        for run in job["runs"]:
            for stage in run["stages"]:
                if stage["state"] != "waiting":
                    self._stage(run, stage, eta if stage["state"] == "running" else None)

    def _waiting(self, state: str, started: bool) -> None:
        """A moving bar without an end until the first stage is known."""
        if self._bars.disable and not started:
            self._print(state, state)
        elif not started and not self._tasks:
            self._tasks[""] = self._bars.add_task(state, total=None, facts="waiting for a worker")
        elif started and "" in self._tasks:
            self._bars.remove_task(self._tasks.pop(""))

    def _stage(self, run: Record, stage: Record, eta: float | None) -> None:
        name, facts = f"{run['model']} {stage['name']}", stage_facts(stage, eta)
        if self._bars.disable:
            self._print(f"{name} {stage['state']}", f"{name}: {facts}")
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, facts="")
        total = stage["of"] or (stage["done"] if stage["state"] == "done" else None)
        self._bars.update(self._tasks[name], completed=stage["done"], total=total, facts=facts)

    def _print(self, key: str, text: str) -> None:
        """A line: the first of its key at once, the next ones now and then, what is done just once."""
        now = time.monotonic()
        last = self._lines.get(key)
        if last is None or (now - last >= LINE_EVERY_S and not key.endswith(" done")):
            self._console.print(text, markup=False, highlight=False)
            self._lines[key] = now


def stage_facts(stage: Record, eta: float | None) -> str:
    """Such as `1200/3600 frames  412.3/s  6 s to go`."""
    of = stage["of"] if stage["of"] is not None else "?"
    words = [f"{stage['done']}/{of} {stage['unit']}s"]
    if stage["per_second"]:
        words.append(f"{stage['per_second']:g}/s")
    if stage["state"] == "done":
        words.append(f"in {stage['seconds']:.1f} s")
    elif eta is not None:
        words.append(f"{eta:.0f} s to go")
    return "  ".join(words)


def follow(service: Service, job_id: str, console: Console, tick: Callable[[], None]) -> Record:
    """Show a job until it has ended; `tick` is called between looks and may wait."""
    with Follower(console) as follower:
        while (job := service.job(job_id))["state"] not in ENDED:
            follower.show(job)
            tick()
        follower.show(job)
    return job


def uploading(console: Console) -> Progress:
    """A bar for bytes."""
    return Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=32),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def results_table(results: Iterable[Record]) -> Table:
    """Results as rows with exact times; ends are exclusive."""
    table = Table(header_style="bold", caption="End frames are exclusive.")
    for title in ("model", "kind", "#"):
        table.add_column(title)
    for title in ("start frame", "end frame", "start", "end", "start s", "end s", "length s", "score"):
        table.add_column(title, justify="right")
    table.add_column("data")
    for result in results:
        table.add_row(*_cells(result))
    return table


def _cells(result: Record) -> list[str]:
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


def likeness_table(answer: Record) -> Table:
    """What is alike, the likest first, and what was not compared."""
    table = Table(header_style="bold", caption=_compared(answer))
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
        number = [str(item["seq"])] if start else []
        table.add_row(f"{item['similarity']:.4f}", item["video"]["id"], item["video"]["name"], *number, *times)
    return table


def _compared(answer: Record) -> str:
    """By which weights, and how many videos have none of these."""
    whole, left = answer["per"] == "video", answer["left_out"]
    said = [f"{answer['model']} {answer['weights']['fingerprint'][:12]}"]
    if left["other_weights"]:
        said.append(f"left out, with other weights: {left['other_weights']}")
    if left["other_per"]:
        said.append(f"left out, embedded {'per shot' if whole else 'as a whole'} only: {left['other_per']}")
    return "; ".join(said)


def jobs_table(jobs: Iterable[Record]) -> Table:
    """Jobs, one a row."""
    table = Table(header_style="bold")
    for title in ("job", "state", "done", "models", "created", "ended"):
        table.add_column(title, overflow="fold")
    for job in jobs:
        models = ", ".join(run["model"] for run in job["runs"])
        done = f"{job['progress']['fraction']:.0%}"
        state = state_word(job["state"])
        table.add_row(job["id"], state, done, models, _when(job["created_at"]), _when(job["finished_at"]))
    return table


def runs_table(job: Record) -> Table:
    """The runs of one job with their stages."""
    table = Table(header_style="bold", title=f"{job['id']}  {state_word(job['state'])}", title_justify="left")
    for title in ("model", "state", "attempt", "stage", "how far"):
        table.add_column(title)
    for run in job["runs"]:
        state = run["state"] + (" (reused)" if run.get("reused") else "")
        table.add_row(run["model"], state, str(run["attempt"]), "", "")
        for stage in run["stages"]:
            table.add_row("", "", "", f"{stage['name']} {stage['state']}", stage_facts(stage, None))
    return table


def models_table(models: Iterable[Record]) -> Table:
    """The menu: a row a parameter."""
    table = Table(header_style="bold")
    for title in ("model", "parameter", "default", "meaning"):
        table.add_column(title)
    for model in models:
        table.add_row(f"[bold]{model['name']}", "", "", model["summary"])
        for name, field in model["params"].get("properties", {}).items():
            table.add_row("", name, str(field.get("default", "")), field.get("description", ""))
    return table


def run_errors(job: Record) -> list[str]:
    """What went wrong, a line a run."""
    return [
        f"{run['model']}: {run['error']['code']}: {run['error']['detail']}" for run in job["runs"] if run.get("error")
    ]


def refusal(error: SceneworksError) -> str:
    """An error for a terminal: its code, what it says, and each fault inside the request."""
    lines = [f"{error.code}: {error.detail}"]
    lines += [f"  {fault.pointer}: {fault.detail}" for fault in error.errors]
    return "\n".join(lines)


def state_word(state: str) -> str:
    """The state in its colour."""
    colour = COLOURS.get(state)
    return f"[{colour}]{state}[/]" if colour else state


def _when(stamp: Any) -> str:
    return str(stamp)[:19].replace("T", " ") if stamp else ""
