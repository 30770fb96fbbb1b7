"""What a person sees of archives: tables, and a batch that moves."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from api.client.http import JsonObject
from api.client.render.jobs import LINE_INTERVAL_S, colour_state
from api.client.sse import BatchClient

SKIP_REASONS = {
    "done": "done already",
    "running": "being done",
    "unreachable": "out of reach: scan their source",
}
CHANGES = ("kept", "moved", "merged", "split", "regrouped", "added", "gone")


def follow_batch(client: BatchClient, batch_id: str, console: Console) -> JsonObject:
    """Show a batch until it has ended: a bar in a terminal, a line now and then elsewhere; and films that fail."""
    bars = Progress(TextColumn("{task.description:<10}"), BarColumn(bar_width=32), TextColumn("{task.fields[facts]}"),
                    console=console, disable=not console.is_terminal)  # fmt: skip
    task, last_printed = bars.add_task("queued", total=1.0, facts=""), float("-inf")
    with bars:
        for name, data in client.iter_batch_events(batch_id):
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
    """Such as `41 % of 200 videos  succeeded 80  running 2  waiting 118  95 s to go`."""
    parts = [f"{batch['progress']['fraction']:.0%} of {batch['videos']} videos", format_counts(batch["counts"])]
    if batch["progress"]["eta_s"] is not None:
        parts.append(f"{format_duration(batch['progress']['eta_s'])} to go")
    return "  ".join(word for word in parts if word)


def format_counts(counts: dict[str, int]) -> str:
    """Such as `succeeded 80  waiting 118`."""
    return "  ".join(f"{state} {number}" for state, number in counts.items())


def format_duration(seconds: float) -> str:
    """Such as `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def format_batch_line(batch: JsonObject) -> str:
    """How a batch stands."""
    return f"{batch['id']} {batch['state']}  {format_counts(batch['counts'])}"


def _create_table(*titles: str, **options: Any) -> Table:
    table = Table(header_style="bold", **options)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _create_facts_table(rows: Iterable[tuple[str, str]], title: str) -> Table:
    table = Table(show_header=False, title=Text(title), title_justify="left")
    for name, value in rows:
        _add_row(table, name, value)
    return table


def _add_row(table: Table, *cells: str | Text) -> None:
    """Names and paths as they are: what stands in brackets is no markup."""
    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))


def _format_state(state: str) -> Text:
    return Text.from_markup(colour_state(state))


def _format_time(timestamp: Any) -> str:
    return f"{str(timestamp)[:19].replace('T', ' ')} UTC" if timestamp else ""


def _format_labels(labels: dict[str, str]) -> str:
    return ", ".join(f"{name}:{value}" for name, value in labels.items())


# Sources --------------------------------------------------------------------------------------------------------------


def build_sources_table(sources: Iterable[JsonObject]) -> Table:
    """Sources, one a row."""
    table = _create_table("name", "where", "watched", "labels", "files", "scanned", "id")
    for source in sources:
        where = source["folder"] or f"{len(source['files'])} files"
        watched = format_duration(source["watch_s"]) if source["watch_s"] else ""
        facts = _format_labels(source["labels"]), format_counts(source["counts"]), _format_scan(source)
        _add_row(table, source["name"], where, watched, *facts, source["id"])
    return table


def format_source(source: JsonObject) -> Text:
    """How a source stands, in a line."""
    return Text(f"{source['name']}  {_format_scan(source)}  {format_counts(source['counts'])}")


def _format_scan(source: JsonObject) -> str:
    if source["scanning"]:
        return "being scanned"
    if source["scan_requested_at"]:
        return "scan asked for"
    error = source["scan"].get("error")
    return f"failed: {error['detail']}" if error else _format_time(source["scanned_at"]) or "never"


def build_files_table(files: Iterable[JsonObject]) -> Table:
    """Files of a source, one a row."""
    table = _create_table("state", "path", "video", "why")
    for file in files:
        reason = file["error"]["detail"] if file["error"] else ""
        _add_row(table, file["state"], file["path"], file["video_id"] or "", reason)
    return table


# Batches --------------------------------------------------------------------------------------------------------------


def build_batches_table(batches: Iterable[JsonObject]) -> Table:
    """Batches, one a row."""
    table = _create_table("batch", "name", "kind", "state", "done", "videos", "created")
    for batch in batches:
        done = f"{batch['progress']['fraction']:.0%}"
        _add_row(
            table,
            batch["id"],
            batch["name"],
            batch["kind"],
            _format_state(batch["state"]),
            done,
            format_counts(batch["counts"]),
            _format_time(batch["created_at"]),
        )
    return table


def build_batch_table(batch: JsonObject) -> Table:
    """One batch."""
    rows = [
        ("name", batch["name"]),
        ("kind", batch["kind"]),
        ("progress", format_progress(batch)),
        *_describe_work(batch),
    ]
    rows += [("created", _format_time(batch["created_at"])), ("started", _format_time(batch["started_at"]))]
    return _create_facts_table(rows, f"{batch['id']}  {batch['state']}")


def _describe_work(record: JsonObject) -> list[tuple[str, str]]:
    """What is done with which films."""
    models = [f"{analysis['model']} {_format_params(analysis['params'])}".rstrip() for analysis in record["analyses"]]
    selection = {name: value for name, value in record["selection"].items() if value}
    videos = "; ".join(
        f"{name} {_format_labels(value) if name == 'labels' else ', '.join(value) if isinstance(value, list) else value}"
        for name, value in selection.items()
    )
    window = record["hours"]
    hours = f"{window['since']}-{window['until']} {window['timezone']}" if window else "always"
    return [
        ("models", "\n".join(models)), ("videos", videos), ("priority", record["priority"]),
        ("at once", str(record["cap"] or "no limit")), ("hours", hours), ("labels", _format_labels(record["labels"])),
    ]  # fmt: skip


def _format_params(params: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items() if value is not None)


def build_items_table(items: Iterable[JsonObject]) -> Table:
    """The films of a batch, one a row."""
    table = _create_table("#", "state", "video", "name", "job", "why")
    for item in items:
        reason = item["error"]["detail"] if item["error"] else ""
        _add_row(
            table,
            str(item["position"]),
            _format_state(item["state"]),
            item["video_id"],
            item["name"],
            item["job_id"] or "",
            reason,
        )
    return table


def build_diff_table(diff: JsonObject) -> Table:
    """What a batch has changed: a row for each kind of result."""
    table = _create_table(
        "results", "before", "after", *CHANGES, "moved by (frames)", caption=format_counts(diff["videos"])
    )
    for kind, sums in diff["kinds"].items():
        moved = sums["moved_frames"]
        by = f"median {moved['median']:g}, largest {moved['largest']}" if moved else ""
        changes = [str(sums["changes"][change]) for change in CHANGES]
        _add_row(table, kind, str(sums["before"]), str(sums["after"]), *changes, by)
    return table


def build_plan_table(plan: JsonObject) -> Table:
    """What reprocessing would come to: films and hours, what is left out and why, and the time of the devices."""
    table = _create_table("what", "videos", "hours of film", "device", "time of the device")
    for title, part in (("selected", plan["selected"]), ("to do", plan["to_do"])):
        _add_row(table, title, str(part["videos"]), f"{part['hours']:.2f}", "", "")
    for reason, number in plan["skipped"].items():
        _add_row(table, f"left out, {SKIP_REASONS.get(reason, reason)}", str(number), "", "", "")
    for estimate in plan["estimates"]:
        device = (
            f"{estimate['device']} {estimate['precision'] or ''}".rstrip() if estimate["device"] else "none measured"
        )
        _add_row(
            table,
            f"run {estimate['model']}",
            str(estimate["runs"]),
            f"{estimate['film_s'] / 3600:.2f}",
            device,
            _format_estimate(estimate),
        )
    return table


def _format_estimate(estimate: JsonObject) -> str:
    """Such as `12 min (10 min to 15 min, by 200 runs)`."""
    seconds = estimate["seconds"]
    if seconds is None:
        return "unknown: no finished run to measure"
    usual, low, high = (format_duration(seconds[name]) for name in ("usual", "low", "high"))
    return f"{usual} ({low} to {high}, by {estimate['measured_runs']} runs)"


# Schedules and queues -------------------------------------------------------------------------------------------------


def build_schedules_table(schedules: Iterable[JsonObject]) -> Table:
    """Schedules, one a row."""
    table = _create_table("name", "when", "next", "catch up", "models", "last", "id")
    for schedule in schedules:
        models = ", ".join(analysis["model"] for analysis in schedule["analyses"])
        last_slot = schedule["last_slots"][0] if schedule["last_slots"] else None
        outcome = f"{last_slot['outcome']} {_format_time(last_slot['due_at'])}" if last_slot else ""
        _add_row(
            table,
            schedule["name"],
            _format_timetable(schedule),
            _format_next_slot(schedule),
            schedule["catch_up"],
            models,
            outcome,
            schedule["id"],
        )
    return table


def build_schedule_table(schedule: JsonObject) -> Table:
    """One schedule: when it fires, what it does, and what became of its last slots."""
    rows = [("when", _format_timetable(schedule)), ("next", _format_next_slot(schedule))]
    rows += [("then", "\n".join(_format_time(slot) for slot in schedule["next_slots"][1:]))]
    rows += [("catch up", f"{schedule['catch_up']}: {schedule['catch_up_rule']}"), *_describe_work(schedule)]
    slots = [f"{_format_time(slot['due_at'])} {slot['outcome']} {slot['batch_id'] or slot['reason'] or ''}".rstrip()
             for slot in schedule["last_slots"]]  # fmt: skip
    rows += [("last", "\n".join(slots))]
    return _create_facts_table(rows, f"{schedule['id']}  {schedule['name']}")


def _format_timetable(schedule: JsonObject) -> str:
    if schedule["cron"] is not None:
        return f"{schedule['cron']} {schedule['timezone']}"
    return f"every {format_duration(schedule['every_s'])}"


def _format_next_slot(schedule: JsonObject) -> str:
    return (
        f"paused since {_format_time(schedule['paused_at'])}"
        if schedule["paused_at"]
        else _format_time(schedule["next_at"])
    )


def build_queues_table(queues: Iterable[JsonObject]) -> Table:
    """Queues, one a row."""
    table = _create_table("model", "mode", "queued", "running", "waiting", "oldest", "wait (median, last hour)")
    for queue in queues:
        numbers = [str(queue[name]) for name in ("depth", "running", "waiting")]
        wait = "" if queue["wait_s"] is None else format_duration(queue["wait_s"])
        _add_row(table, queue["model"], queue["mode"], *numbers, _format_time(queue["oldest_at"]), wait)
    return table
