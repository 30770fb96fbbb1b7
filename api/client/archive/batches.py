"""`sceneworks batch`: the same work on many films."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from api.client.archive.options import (
    CapOption,
    CodeOption,
    HoursOption,
    JobLabelOption,
    OnlyOption,
    PriorityOption,
    SourceOption,
    VideoOption,
    WithOption,
    ZoneOption,
    archives,
    selection,
    work,
)
from api.client.terminal import FAILED, INTERRUPTED, AsJson, ModelOption, ParamOption, complain, console, out, shown

if TYPE_CHECKING:
    from api.client.archive.service import ArchiveService
    from api.client.service import Record

app = typer.Typer(help="Batches: the same work on many films.", no_args_is_help=True)

BatchArgument = Annotated[str, typer.Argument(metavar="BATCH", help="Id of a batch.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Stay until it has ended, showing progress.")]


@app.command()
def create(
    context: typer.Context,
    model: ModelOption,
    param: ParamOption = None,
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    source: SourceOption = None,
    video: VideoOption = None,
    label: WithOption = None,
    only: OnlyOption = None,
    code: CodeOption = None,
    priority: PriorityOption = None,
    cap: CapOption = None,
    hours: HoursOption = None,
    timezone: ZoneOption = None,
    job_label: JobLabelOption = None,
    wait: WaitOption = False,
    as_json: AsJson = False,
) -> None:
    """Run models on many films, all unless said otherwise; prints the batch's id."""
    with archives(context) as service:
        chosen = selection(service, source, video, label, only, code)
        body = work(
            model, param, chosen, priority=priority, cap=cap, hours=hours, timezone=timezone, job_label=job_label
        )  # fmt: skip
        made(service, service.create_batch(body | ({"name": name} if name else {})), wait, as_json)


@app.command("list")
def list_(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=500, help="So many.")] = 20,
    state: Annotated[str | None, typer.Option(help="Only these states, comma separated.")] = None,
    as_json: AsJson = False,
) -> None:
    """List batches, newest first."""
    from api.client.archive.screen import batches_table

    with archives(context) as service:
        shown(service.batches(limit, state), as_json, batches_table)


@app.command()
def show(
    context: typer.Context,
    batch: BatchArgument,
    items: Annotated[bool, typer.Option("--items", help="Its films one by one.")] = False,
    state: Annotated[str | None, typer.Option(help="With --items: only these states, comma separated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show how a batch stands, or its films."""
    from api.client.archive.screen import batch_table, items_table

    with archives(context) as service:
        if items or state:
            shown(list(service.items_of(batch, state)), as_json, items_table)
        else:
            shown(service.batch(batch), as_json, batch_table)


@app.command()
def watch(context: typer.Context, batch: BatchArgument, as_json: AsJson = False) -> None:
    """Follow a batch to its end; exit code 1 unless it succeeded."""
    with archives(context) as service:
        finish(service, batch, as_json)


@app.command()
def pause(context: typer.Context, batch: BatchArgument, as_json: AsJson = False) -> None:
    """Start no more of its jobs."""
    _tell(context, batch, "pause", as_json)


@app.command()
def resume(context: typer.Context, batch: BatchArgument, as_json: AsJson = False) -> None:
    """Go on with the rest."""
    _tell(context, batch, "resume", as_json)


@app.command()
def cancel(context: typer.Context, batch: BatchArgument, as_json: AsJson = False) -> None:
    """Let go of everything that is not done."""
    _tell(context, batch, "cancel", as_json)


@app.command()
def retry(context: typer.Context, batch: BatchArgument, as_json: AsJson = False) -> None:
    """Try again what failed."""
    _tell(context, batch, "retry", as_json)


@app.command()
def diff(context: typer.Context, batch: BatchArgument, as_json: AsJson = False) -> None:
    """Show what a batch has changed, against the results that were there before."""
    from api.client.archive.screen import diff_table

    with archives(context) as service:
        shown(service.batch_diff(batch), as_json, diff_table)


def made(service: ArchiveService, batch: Record, wait: bool, as_json: bool) -> None:
    """Say which batch was made, or follow it to its end."""
    if wait:
        finish(service, batch["id"], as_json)
    else:
        out(json.dumps(batch, indent=2) if as_json else batch["id"])


def finish(service: ArchiveService, batch_id: str, as_json: bool) -> None:
    """Follow a batch to its end; exit code 1 unless it succeeded."""
    from api.client.archive.screen import follow, one_line

    try:
        batch = follow(service, batch_id, console(stderr=True))
    except KeyboardInterrupt:
        complain([f"The batch goes on: sceneworks batch watch {batch_id}"])
        raise typer.Exit(INTERRUPTED) from None
    shown(batch, as_json, one_line)
    if batch["state"] != "succeeded":
        raise typer.Exit(FAILED)


def _tell(context: typer.Context, batch: str, verb: str, as_json: bool) -> None:
    from api.client.archive.screen import one_line

    with archives(context) as service:
        shown(service.tell_batch(batch, verb), as_json, one_line)
