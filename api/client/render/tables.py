"""Tables and cells that every noun shares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

STATE_COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "cancelling": "yellow",
}


def create_table(*titles: str, **options: Any) -> Table:
    """Create a table with these columns; long cells are folded, never cut."""
    table = Table(header_style="bold", **options)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def create_facts_table(rows: Iterable[tuple[str, str]], title: str) -> Table:
    """Create a table of names and values about one record."""
    table = Table(show_header=False, title=Text(title), title_justify="left")
    for name, value in rows:
        add_row(table, name, value)
    return table


def add_row(table: Table, *cells: str | Text) -> None:
    """Add a row whose cells are printed as they are: brackets in a name or a path are not markup."""
    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))


def format_state(state: str) -> Text:
    """Format a state in its colour."""
    return Text.from_markup(colour_state(state))


def colour_state(state: str) -> str:
    """Wrap a state in the markup of its colour."""
    colour = STATE_COLOURS.get(state)
    return f"[{colour}]{state}[/]" if colour else state


def format_time(timestamp: str | None) -> str:
    """Format a timestamp of the API, such as `2026-01-31 12:00:00 UTC`; empty for None."""
    return f"{timestamp[:19].replace('T', ' ')} UTC" if timestamp else ""


def format_labels(labels: dict[str, str]) -> str:
    """Format labels, such as `show:x, year:2026`."""
    return ", ".join(f"{name}:{value}" for name, value in labels.items())


def format_counts(counts: dict[str, int]) -> str:
    """Format counts, such as `succeeded 80  waiting 118`."""
    return "  ".join(f"{state} {number}" for state, number in counts.items())


def format_duration(seconds: float) -> str:
    """Format a duration, such as `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
