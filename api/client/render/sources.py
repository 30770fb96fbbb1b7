"""Sources and their files as tables."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from api.client.http import JsonObject
from api.client.render.tables import (
    add_row,
    create_table,
    format_counts,
    format_duration,
    format_labels,
    format_time,
)


def build_sources_table(sources: Iterable[JsonObject]) -> Table:
    """Build a table of sources, one in each row."""
    table = create_table("name", "where", "watched", "labels", "files", "scanned", "id")
    for source in sources:
        where = source["folder"] or f"{len(source['files'])} files"
        watched = format_duration(source["watch_s"]) if source["watch_s"] else ""
        facts = format_labels(source["labels"]), format_counts(source["counts"]), _format_scan(source)
        add_row(table, source["name"], where, watched, *facts, source["id"])
    return table


def format_source(source: JsonObject) -> Text:
    """Format a source and its last scan as one line."""
    return Text(f"{source['name']}  {_format_scan(source)}  {format_counts(source['counts'])}")


def _format_scan(source: JsonObject) -> str:
    if source["scanning"]:
        return "being scanned"
    if source["scan_requested_at"]:
        return "scan requested"
    error = source["scan"].get("error")
    return f"failed: {error['detail']}" if error else format_time(source["scanned_at"]) or "never"


def build_files_table(files: Iterable[JsonObject]) -> Table:
    """Build a table of the files of a source, one in each row."""
    table = create_table("state", "path", "video", "why")
    for file in files:
        reason = file["error"]["detail"] if file["error"] else ""
        add_row(table, file["state"], file["path"], file["video_id"] or "", reason)
    return table
