"""Queues as a table."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from api.client.http import JsonObject
from api.client.render.tables import add_row, create_table, format_duration, format_time


def build_queues_table(queues: Iterable[JsonObject]) -> Table:
    """Build a table of queues, one in each row."""
    table = create_table("model", "mode", "queued", "running", "waiting", "oldest", "wait (median, last hour)")
    for queue in queues:
        numbers = [str(queue[name]) for name in ("depth", "running", "waiting")]
        wait = "" if queue["wait_s"] is None else format_duration(queue["wait_s"])
        add_row(table, queue["model"], queue["mode"], *numbers, format_time(queue["oldest_at"]), wait)
    return table
