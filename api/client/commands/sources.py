"""`sceneworks source`: folders and lists of files whose videos stay where they are."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.client.commands.options import LabelOption, parse_labels
from api.client.terminal import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    AsJson,
    connect_client,
    print_errors,
    print_line,
    print_record,
)

if TYPE_CHECKING:
    from api.client.http import ApiClient, JsonObject

POLL_INTERVAL_S = 0.5

app = typer.Typer(help="Sources: folders whose files become videos and stay where they are.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of a source.")]


class FileState(StrEnum):
    """State of a file at the last scan."""

    PRESENT = "present"
    GONE = "gone"
    REFUSED = "refused"


@app.command("add")
def add_source(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the source.")],
    folder: Annotated[Path | None, typer.Argument(help="A folder, as the service sees it.")] = None,
    file: Annotated[list[Path] | None, typer.Option(help="A file in place of a folder; may be given again.")] = None,
    watch: Annotated[float | None, typer.Option(min=10, metavar="SECONDS", help="Scan it this often.")] = None,
    label: LabelOption = None,
    as_json: AsJson = False,
) -> None:
    """Add a folder, or a list of files, and request its first scan."""
    body: JsonObject = {"name": name, "watch_s": watch, "labels": parse_labels(label)}
    body |= {"folder": os.path.abspath(folder)} if folder else {}  # noqa: PTH100 (links are the service's to resolve)
    body |= {"files": [os.path.abspath(path) for path in file]} if file else {}  # noqa: PTH100 (likewise)
    with connect_client(context) as client:
        source = client.add_source(body)
        print_line(json.dumps(source, indent=2) if as_json else source["id"])


@app.command("scan")
def scan_source(
    context: typer.Context,
    name: NameArgument,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it is done; exit code 1 if it failed.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Read every file again, changed or not.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look for new, changed and vanished files."""
    from api.client.render.sources import format_source

    with connect_client(context) as client:
        source = client.request_scan(client.get_source(name)["id"], force)
        source = _wait_for_scan(client, source) if wait else source
        print_record(source, as_json, format_source)
        if wait and source["scan"].get("error"):
            raise typer.Exit(EXIT_FAILED)


@app.command("list")
def list_sources(context: typer.Context, as_json: AsJson = False) -> None:
    """List the sources."""
    from api.client.render.sources import build_sources_table

    with connect_client(context) as client:
        print_record(client.list_sources(), as_json, build_sources_table)


@app.command("files")
def list_files(
    context: typer.Context,
    name: NameArgument,
    state: Annotated[FileState | None, typer.Option(help="Only files in this state.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the files of a source with the ids of their videos."""
    from api.client.render.sources import build_files_table

    with connect_client(context) as client:
        files = list(client.iter_source_files(client.get_source(name)["id"], state.value if state else None))
        print_record(files, as_json, build_files_table)


@app.command("remove")
def remove_source(context: typer.Context, name: NameArgument) -> None:
    """Remove a source; its videos and their results stay."""
    with connect_client(context) as client:
        source = client.get_source(name)
        client.remove_source(source["id"])
        print_line(source["id"])


def _parse_time(timestamp: str | None) -> datetime:
    return datetime.fromisoformat(timestamp) if timestamp else datetime.min.replace(tzinfo=UTC)


def _wait_for_scan(client: ApiClient, requested: JsonObject) -> JsonObject:
    """Poll until the requested scan is over, and return the source. Ctrl-C stops the waiting, not the scan."""
    try:
        while True:
            source = client.get_source(requested["id"])
            # The scanner clears the request when it starts. Until it has ended, `scanned_at` is that of an older scan.
            started = source["scan_requested_at"] != requested["scan_requested_at"]
            if (
                started
                and not source["scanning"]
                and _parse_time(source["scanned_at"]) >= _parse_time(requested["scan_requested_at"])
            ):
                return source
            time.sleep(POLL_INTERVAL_S)
    except KeyboardInterrupt:
        print_errors([f"The scan goes on: sceneworks source list shows {requested['name']}"])
        raise typer.Exit(EXIT_INTERRUPTED) from None
