"""What a person sees of archives: tables, and a batch that moves."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from api.client.archive.service import ArchiveService
from api.client.screen import LINE_EVERY_S, state_word
from api.client.service import Record

SKIPPED = {
    "done": "done already",
    "running": "being done",
    "unreachable": "out of reach: scan their source",
}
CHANGES = ("kept", "moved", "merged", "split", "regrouped", "added", "gone")


def follow(service: ArchiveService, batch_id: str, console: Console) -> Record:
    """Show a batch until it has ended: a bar in a terminal, a line now and then elsewhere; and films that fail."""
    bars = Progress(TextColumn("{task.description:<10}"), BarColumn(bar_width=32), TextColumn("{task.fields[facts]}"),
                    console=console, disable=not console.is_terminal)  # fmt: skip
    task, spoken = bars.add_task("queued", total=1.0, facts=""), float("-inf")
    with bars:
        for name, data in service.events(batch_id):
            if name == "job" and data["state"] in {"failed", "refused"}:
                bars.console.print(f"{data['video_id']} {data['state']}: {data['code']}", markup=False)
            elif name == "progress":
                facts = progress_facts(data)
                bars.update(task, description=data["state"], completed=data["progress"]["fraction"], facts=facts)
                if bars.disable and time.monotonic() - spoken >= LINE_EVERY_S:
                    console.print(f"{data['state']}: {facts}", markup=False)
                    spoken = time.monotonic()
    return service.batch(batch_id)


def progress_facts(batch: Record) -> str:
    """Such as `41 % of 200 videos  succeeded 80  running 2  waiting 118  95 s to go`."""
    words = [f"{batch['progress']['fraction']:.0%} of {batch['videos']} videos", counts(batch["counts"])]
    if batch["progress"]["eta_s"] is not None:
        words.append(f"{duration(batch['progress']['eta_s'])} to go")
    return "  ".join(word for word in words if word)


def counts(numbers: dict[str, int]) -> str:
    """Such as `succeeded 80  waiting 118`."""
    return "  ".join(f"{state} {number}" for state, number in numbers.items())


def duration(seconds: float) -> str:
    """Such as `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def one_line(batch: Record) -> str:
    """How a batch stands."""
    return f"{batch['id']} {batch['state']}  {counts(batch['counts'])}"


def _table(*titles: str, **options: Any) -> Table:
    table = Table(header_style="bold", **options)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _facts(rows: Iterable[tuple[str, str]], title: str) -> Table:
    table = Table(show_header=False, title=Text(title), title_justify="left")
    for name, value in rows:
        _row(table, name, value)
    return table


def _row(table: Table, *cells: str | Text) -> None:
    """Names and paths as they are: what stands in brackets is no markup."""
    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))


def _state(state: str) -> Text:
    return Text.from_markup(state_word(state))


def _when(stamp: Any) -> str:
    return f"{str(stamp)[:19].replace('T', ' ')} UTC" if stamp else ""


def _labels(labels: dict[str, str]) -> str:
    return ", ".join(f"{name}:{value}" for name, value in labels.items())


# Sources --------------------------------------------------------------------------------------------------------------


def sources_table(sources: Iterable[Record]) -> Table:
    """Sources, one a row."""
    table = _table("name", "where", "watched", "labels", "files", "scanned", "id")
    for source in sources:
        where = source["folder"] or f"{len(source['files'])} files"
        watched = duration(source["watch_s"]) if source["watch_s"] else ""
        facts = _labels(source["labels"]), counts(source["counts"]), _scan(source)
        _row(table, source["name"], where, watched, *facts, source["id"])
    return table


def source_facts(source: Record) -> Text:
    """How a source stands, in a line."""
    return Text(f"{source['name']}  {_scan(source)}  {counts(source['counts'])}")


def _scan(source: Record) -> str:
    if source["scanning"]:
        return "being scanned"
    if source["wanted_at"]:
        return "scan asked for"
    error = source["scan"].get("error")
    return f"failed: {error['detail']}" if error else _when(source["scanned_at"]) or "never"


def files_table(files: Iterable[Record]) -> Table:
    """Files of a source, one a row."""
    table = _table("state", "path", "video", "why")
    for file in files:
        why = file["error"]["detail"] if file["error"] else ""
        _row(table, file["state"], file["path"], file["video_id"] or "", why)
    return table


# Batches --------------------------------------------------------------------------------------------------------------


def batches_table(batches: Iterable[Record]) -> Table:
    """Batches, one a row."""
    table = _table("batch", "name", "kind", "state", "done", "videos", "created")
    for batch in batches:
        done = f"{batch['progress']['fraction']:.0%}"
        _row(
            table,
            batch["id"],
            batch["name"],
            batch["kind"],
            _state(batch["state"]),
            done,
            counts(batch["counts"]),
            _when(batch["created_at"]),
        )
    return table


def batch_table(batch: Record) -> Table:
    """One batch."""
    rows = [("name", batch["name"]), ("kind", batch["kind"]), ("progress", progress_facts(batch)), *_work(batch)]
    rows += [("created", _when(batch["created_at"])), ("started", _when(batch["started_at"]))]
    return _facts(rows, f"{batch['id']}  {batch['state']}")


def _work(said: Record) -> list[tuple[str, str]]:
    """What is done with which films."""
    models = [f"{one['model']} {_params(one['params'])}".rstrip() for one in said["analyses"]]
    chosen = {name: value for name, value in said["selection"].items() if value}
    films = "; ".join(
        f"{name} {_labels(value) if name == 'labels' else ', '.join(value) if isinstance(value, list) else value}"
        for name, value in chosen.items()
    )
    window = said["hours"]
    hours = f"{window['since']}-{window['until']} {window['timezone']}" if window else "always"
    return [
        ("models", "\n".join(models)), ("films", films), ("priority", said["priority"]),
        ("at once", str(said["cap"] or "no limit")), ("hours", hours), ("labels", _labels(said["labels"])),
    ]  # fmt: skip


def _params(params: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items() if value is not None)


def items_table(items: Iterable[Record]) -> Table:
    """The films of a batch, one a row."""
    table = _table("#", "state", "video", "name", "job", "why")
    for item in items:
        why = item["error"]["detail"] if item["error"] else ""
        _row(
            table,
            str(item["position"]),
            _state(item["state"]),
            item["video_id"],
            item["name"],
            item["job_id"] or "",
            why,
        )
    return table


def diff_table(diff: Record) -> Table:
    """What a batch has changed: a row for each kind of result."""
    table = _table("results", "before", "after", *CHANGES, "moved by (frames)", caption=counts(diff["films"]))
    for kind, sums in diff["kinds"].items():
        moved = sums["moved_frames"]
        by = f"median {moved['median']:g}, largest {moved['largest']}" if moved else ""
        changes = [str(sums["changes"][change]) for change in CHANGES]
        _row(table, kind, str(sums["before"]), str(sums["after"]), *changes, by)
    return table


def plan_table(plan: Record) -> Table:
    """What reprocessing would come to: films and hours, what is left out and why, and the time of the devices."""
    table = _table("what", "videos", "hours of film", "device", "time of the device")
    for title, part in (("selected", plan["selected"]), ("to do", plan["to_do"])):
        _row(table, title, str(part["videos"]), f"{part['hours']:.2f}", "", "")
    for reason, number in plan["skipped"].items():
        _row(table, f"left out, {SKIPPED.get(reason, reason)}", str(number), "", "", "")
    for one in plan["estimates"]:
        device = f"{one['device']} {one['precision'] or ''}".rstrip() if one["device"] else "none measured"
        _row(table, f"run {one['model']}", str(one["runs"]), f"{one['film_s'] / 3600:.2f}", device, _spread(one))
    return table


def _spread(estimate: Record) -> str:
    """Such as `12 min (10 min to 15 min, by 200 runs)`."""
    seconds = estimate["seconds"]
    if seconds is None:
        return "unknown: no finished run to measure"
    usual, low, high = (duration(seconds[name]) for name in ("usual", "low", "high"))
    return f"{usual} ({low} to {high}, by {estimate['measured_runs']} runs)"


# Schedules and queues -------------------------------------------------------------------------------------------------


def schedules_table(schedules: Iterable[Record]) -> Table:
    """Schedules, one a row."""
    table = _table("name", "when", "next", "catch up", "models", "last", "id")
    for one in schedules:
        models = ", ".join(asked["model"] for asked in one["analyses"])
        last = one["last_slots"][0] if one["last_slots"] else None
        said = f"{last['outcome']} {_when(last['due_at'])}" if last else ""
        _row(table, one["name"], _timetable(one), _next(one), one["catch_up"], models, said, one["id"])
    return table


def schedule_table(schedule: Record) -> Table:
    """One schedule: when it fires, what it does, and what became of its last slots."""
    rows = [("when", _timetable(schedule)), ("next", _next(schedule))]
    rows += [("then", "\n".join(_when(slot) for slot in schedule["coming"][1:]))]
    rows += [("catch up", f"{schedule['catch_up']}: {schedule['catch_up_rule']}"), *_work(schedule)]
    slots = [f"{_when(slot['due_at'])} {slot['outcome']} {slot['batch_id'] or slot['reason'] or ''}".rstrip()
             for slot in schedule["last_slots"]]  # fmt: skip
    rows += [("last", "\n".join(slots))]
    return _facts(rows, f"{schedule['id']}  {schedule['name']}")


def _timetable(schedule: Record) -> str:
    if schedule["cron"] is not None:
        return f"{schedule['cron']} {schedule['timezone']}"
    return f"every {duration(schedule['every_s'])}"


def _next(schedule: Record) -> str:
    return f"paused since {_when(schedule['paused_at'])}" if schedule["paused_at"] else _when(schedule["next_at"])


def queues_table(queues: Iterable[Record]) -> Table:
    """Queues, one a row."""
    table = _table("model", "mode", "queued", "running", "waiting", "oldest", "wait (median, last hour)")
    for queue in queues:
        numbers = [str(queue[name]) for name in ("depth", "running", "waiting")]
        wait = "" if queue["wait_s"] is None else duration(queue["wait_s"])
        _row(table, queue["model"], queue["mode"], *numbers, _when(queue["oldest_at"]), wait)
    return table
