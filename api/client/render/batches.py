"""Batches, their videos, plans and diffs as tables, and the progress of a batch."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from api.client.http import ApiClient, JsonObject
from api.client.render.jobs import LINE_INTERVAL_S
from api.client.render.tables import (
    add_row,
    create_facts_table,
    create_table,
    format_counts,
    format_duration,
    format_labels,
    format_state,
    format_time,
)
from api.client.sse import iter_batch_events

SKIP_REASONS = {
    "done": "done already",
    "running": "being done",
    "unreachable": "out of reach: scan their source",
}
CHANGES = ("kept", "moved", "merged", "split", "regrouped", "added", "gone")


def follow_batch(client: ApiClient, batch_id: str, console: Console) -> JsonObject:
    """Show a batch until it has ended: a bar in a terminal, a line now and then elsewhere; and each failed video."""
    bars = Progress(TextColumn("{task.description:<10}"), BarColumn(bar_width=32), TextColumn("{task.fields[facts]}"),
                    console=console, disable=not console.is_terminal)  # fmt: skip
    task, last_printed = bars.add_task("queued", total=1.0, facts=""), float("-inf")
    with bars:
        for name, data in iter_batch_events(client, batch_id):
            if name == "job" and data["state"] in {"failed", "refused"}:
                bars.console.print(f"{data['video_id']} {data['state']}: {data['code']}", markup=False)
            elif name == "progress":
                facts = format_progress(data)
                bars.update(task, description=data["state"], completed=data["progress"]["fraction"], facts=facts)
                if bars.disable and time.monotonic() - last_printed >= LINE_INTERVAL_S:
                    console.print(f"{data['state']}: {facts}", markup=False)
                    last_printed = time.monotonic()
    return client.get_batch(batch_id)


def format_progress(batch: JsonObject) -> str:
    """Format progress, such as `41 % of 200 videos  succeeded 80  running 2  waiting 118  95 s to go`."""
    parts = [f"{batch['progress']['fraction']:.0%} of {batch['videos']} videos", format_counts(batch["counts"])]
    if batch["progress"]["eta_s"] is not None:
        parts.append(f"{format_duration(batch['progress']['eta_s'])} to go")
    return "  ".join(part for part in parts if part)


def format_batch_line(batch: JsonObject) -> str:
    """Format a batch as one line: its state and how many of its videos are in which state."""
    return f"{batch['id']} {batch['state']}  {format_counts(batch['counts'])}"


def build_batches_table(batches: Iterable[JsonObject]) -> Table:
    """Build a table of batches, one in each row."""
    table = create_table("batch", "name", "kind", "state", "done", "videos", "created")
    for batch in batches:
        done = f"{batch['progress']['fraction']:.0%}"
        facts = done, format_counts(batch["counts"]), format_time(batch["created_at"])
        add_row(table, batch["id"], batch["name"], batch["kind"], format_state(batch["state"]), *facts)
    return table


def build_batch_table(batch: JsonObject) -> Table:
    """Build a table of one batch."""
    rows = [("name", batch["name"]), ("kind", batch["kind"]), ("progress", format_progress(batch))]
    rows += describe_work(batch)
    rows += [("created", format_time(batch["created_at"])), ("started", format_time(batch["started_at"]))]
    return create_facts_table(rows, f"{batch['id']}  {batch['state']}")


def describe_work(record: JsonObject) -> list[tuple[str, str]]:
    """Describe what a batch or a schedule does with which videos, as names and values."""
    models = [f"{analysis['model']} {_format_params(analysis['params'])}".rstrip() for analysis in record["analyses"]]
    window = record["hours"]
    hours = f"{window['since']}-{window['until']} {window['timezone']}" if window else "always"
    return [
        ("models", "\n".join(models)), ("videos", _format_selection(record["selection"])),
        ("priority", record["priority"]), ("at once", str(record["cap"] or "no limit")), ("hours", hours),
        ("labels", format_labels(record["labels"])),
    ]  # fmt: skip


def _format_selection(selection: dict[str, Any]) -> str:
    """Format the filters that are set, such as `only missing; labels show:x`."""
    parts = []
    for name, value in selection.items():
        if isinstance(value, dict):
            text = format_labels(value)
        else:
            text = ", ".join(value) if isinstance(value, list) else value
        if text:
            parts.append(f"{name} {text}")
    return "; ".join(parts)


def _format_params(params: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items() if value is not None)


def build_items_table(items: Iterable[JsonObject]) -> Table:
    """Build a table of the videos of a batch, one in each row."""
    table = create_table("#", "state", "video", "name", "job", "why")
    for item in items:
        reason = item["error"]["detail"] if item["error"] else ""
        position, state = str(item["position"]), format_state(item["state"])
        add_row(table, position, state, item["video_id"], item["name"], item["job_id"] or "", reason)
    return table


def build_diff_table(diff: JsonObject) -> Table:
    """Build a table of what a batch has changed, with a row for each kind of result."""
    table = create_table(
        "results", "before", "after", *CHANGES, "moved by (frames)", caption=format_counts(diff["videos"])
    )
    for kind, sums in diff["kinds"].items():
        moved = sums["moved_frames"]
        shift = f"median {moved['median']:g}, largest {moved['largest']}" if moved else ""
        changes = [str(sums["changes"][change]) for change in CHANGES]
        add_row(table, kind, str(sums["before"]), str(sums["after"]), *changes, shift)
    return table


def build_plan_table(plan: JsonObject) -> Table:
    """Build a table of what reprocessing would do: videos and hours, what is left out and why, and device time."""
    table = create_table("what", "videos", "hours of video", "device", "time of the device")
    for title, part in (("selected", plan["selected"]), ("to do", plan["to_do"])):
        add_row(table, title, str(part["videos"]), f"{part['hours']:.2f}", "", "")
    for reason, number in plan["skipped"].items():
        add_row(table, f"left out, {SKIP_REASONS.get(reason, reason)}", str(number), "", "", "")
    for estimate in plan["estimates"]:
        device = "none measured"
        if estimate["device"]:
            device = f"{estimate['device']} {estimate['precision'] or ''}".rstrip()
        amount = str(estimate["runs"]), f"{estimate['video_s'] / 3600:.2f}"
        add_row(table, f"run {estimate['model']}", *amount, device, _format_estimate(estimate))
    return table


def _format_estimate(estimate: JsonObject) -> str:
    """Format device time, such as `12 min (10 min to 15 min, by 200 runs)`."""
    seconds = estimate["seconds"]
    if seconds is None:
        return "unknown: no finished run to measure"
    usual, low, high = (format_duration(seconds[name]) for name in ("usual", "low", "high"))
    return f"{usual} ({low} to {high}, by {estimate['measured_runs']} runs)"
