"""Schedules as tables."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from api.client.http import JsonObject
from api.client.render.batches import describe_work
from api.client.render.tables import add_row, create_facts_table, create_table, format_duration, format_time


def build_schedules_table(schedules: Iterable[JsonObject]) -> Table:
    """Build a table of schedules, one in each row."""
    table = create_table("name", "when", "next", "catch up", "models", "last", "id")
    for schedule in schedules:
        models = ", ".join(analysis["model"] for analysis in schedule["analyses"])
        last_slot = schedule["last_slots"][0] if schedule["last_slots"] else None
        outcome = f"{last_slot['outcome']} {format_time(last_slot['due_at'])}" if last_slot else ""
        times = _format_timetable(schedule), _format_next_slot(schedule), schedule["catch_up"]
        add_row(table, schedule["name"], *times, models, outcome, schedule["id"])
    return table


def build_schedule_table(schedule: JsonObject) -> Table:
    """Build a table of one schedule: when it fires, what it does, and the outcome of its last slots."""
    rows = [("when", _format_timetable(schedule)), ("next", _format_next_slot(schedule))]
    rows += [("then", "\n".join(format_time(slot) for slot in schedule["next_slots"][1:]))]
    rows += [("catch up", f"{schedule['catch_up']}: {schedule['catch_up_rule']}"), *describe_work(schedule)]
    slots = [f"{format_time(slot['due_at'])} {slot['outcome']} {slot['batch_id'] or slot['reason'] or ''}".rstrip()
             for slot in schedule["last_slots"]]  # fmt: skip
    rows += [("last", "\n".join(slots))]
    return create_facts_table(rows, f"{schedule['id']}  {schedule['name']}")


def _format_timetable(schedule: JsonObject) -> str:
    if schedule["cron"] is not None:
        return f"{schedule['cron']} {schedule['timezone']}"
    return f"every {format_duration(schedule['every_s'])}"


def _format_next_slot(schedule: JsonObject) -> str:
    if schedule["paused_at"]:
        return f"paused since {format_time(schedule['paused_at'])}"
    return format_time(schedule["next_at"])
