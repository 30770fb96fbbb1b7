"""`sceneworks archive`: folders and lists of files whose films stay where they are."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.client.archive.options import LabelOption, archives, labels
from api.client.terminal import FAILED, INTERRUPTED, AsJson, complain, out, shown

if TYPE_CHECKING:
    from api.client.archive.service import ArchiveService
    from api.client.service import Record

LOOK_EVERY_S = 0.5

app = typer.Typer(help="Sources: folders whose films become videos and stay where they are.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of a source.")]


class State(StrEnum):
    """How a file was found."""

    PRESENT = "present"
    GONE = "gone"
    REFUSED = "refused"


@app.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    folder: Annotated[Path | None, typer.Argument(help="A folder, as the service sees it.")] = None,
    file: Annotated[list[Path] | None, typer.Option(help="A file in place of a folder; may be given again.")] = None,
    watch: Annotated[float | None, typer.Option(min=10, metavar="SECONDS", help="Scan it this often.")] = None,
    label: LabelOption = None,
    as_json: AsJson = False,
) -> None:
    """Add a folder, or a list of files; its first scan is asked for."""
    body: Record = {"name": name, "watch_s": watch, "labels": labels(label)}
    body |= {"folder": os.path.abspath(folder)} if folder else {}  # noqa: PTH100 (links are the service's to resolve)
    body |= {"files": [os.path.abspath(path) for path in file]} if file else {}  # noqa: PTH100 (likewise)
    with archives(context) as service:
        source = service.add_source(body)
        out(json.dumps(source, indent=2) if as_json else source["id"])


@app.command()
def scan(
    context: typer.Context,
    name: NameArgument,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it is done; exit code 1 if it failed.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Look at every file anew, changed or not.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look for new, changed and vanished films."""
    from api.client.archive.screen import source_facts

    with archives(context) as service:
        source = service.scan(service.source(name)["id"], force)
        source = _scanned(service, source) if wait else source
        shown(source, as_json, source_facts)
        if wait and source["scan"].get("error"):
            raise typer.Exit(FAILED)


@app.command("list")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List the sources."""
    from api.client.archive.screen import sources_table

    with archives(context) as service:
        shown(service.sources(), as_json, sources_table)


@app.command()
def files(
    context: typer.Context,
    name: NameArgument,
    state: Annotated[State | None, typer.Option(help="Only such files.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the files of a source, and the videos that they are."""
    from api.client.archive.screen import files_table

    with archives(context) as service:
        found = list(service.files_of(service.source(name)["id"], state.value if state else None))
        shown(found, as_json, files_table)


@app.command()
def remove(context: typer.Context, name: NameArgument) -> None:
    """Forget a source; its videos and their results stay."""
    with archives(context) as service:
        source = service.source(name)
        service.remove_source(source["id"])
        out(source["id"])


def _moment(stamp: str | None) -> datetime:
    return datetime.fromisoformat(stamp) if stamp else datetime.min.replace(tzinfo=UTC)


def _scanned(service: ArchiveService, asked: Record) -> Record:
    """The source once the scan that was asked for is over."""
    try:
        while True:
            source = service.source(asked["id"])
            begun = source["wanted_at"] != asked["wanted_at"]
            if begun and not source["scanning"] and _moment(source["scanned_at"]) >= _moment(asked["wanted_at"]):
                return source
            time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:
        complain([f"The scan goes on: sceneworks archive list shows {asked['name']}"])
        raise typer.Exit(INTERRUPTED) from None
