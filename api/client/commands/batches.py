"""`sceneworks batch`: the same work on many videos."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from api.client.commands.options import (
    CapOption,
    CodeOption,
    HoursOption,
    JobLabelOption,
    LabelFilterOption,
    OnlyOption,
    PriorityOption,
    SourceOption,
    VideoOption,
    ZoneOption,
    build_selection,
    build_work,
)
from api.client.terminal import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    AsJson,
    ModelOption,
    ParamOption,
    connect_client,
    create_console,
    print_errors,
    print_line,
    print_record,
)

if TYPE_CHECKING:
    from api.client.http import ApiClient, JsonObject

app = typer.Typer(help="Batches: the same work on many videos.", no_args_is_help=True)

BatchArgument = Annotated[str, typer.Argument(metavar="BATCH", help="Id of a batch.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Stay until it has ended, showing progress.")]


@app.command("create")
def create_batch(
    context: typer.Context,
    model: ModelOption,
    param: ParamOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the batch.")] = None,
    source: SourceOption = None,
    video: VideoOption = None,
    label: LabelFilterOption = None,
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
    """Run models on many videos, by default on all; prints the batch's id."""
    with connect_client(context) as client:
        selection = build_selection(client, source, video, label, only, code)
        body = build_work(
            model, param, selection, priority=priority, cap=cap, hours=hours, timezone=timezone, job_label=job_label
        )  # fmt: skip
        report_batch(client, client.create_batch(body | ({"name": name} if name else {})), wait, as_json)


@app.command("list")
def list_batches(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Number of batches.")] = 20,
    state: Annotated[str | None, typer.Option(help="Only these states, comma separated.")] = None,
    as_json: AsJson = False,
) -> None:
    """List batches, newest first."""
    from api.client.render.batches import build_batches_table

    with connect_client(context) as client:
        print_record(client.list_batches(limit, state), as_json, build_batches_table)


@app.command("show")
def show_batch(
    context: typer.Context,
    batch: BatchArgument,
    items: Annotated[bool, typer.Option("--items", help="Its videos one by one.")] = False,
    state: Annotated[str | None, typer.Option(help="With --items: only these states, comma separated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a batch with its progress, or its videos."""
    from api.client.render.batches import build_batch_table, build_items_table

    with connect_client(context) as client:
        if items or state:
            print_record(list(client.iter_batch_items(batch, state)), as_json, build_items_table)
        else:
            print_record(client.get_batch(batch), as_json, build_batch_table)


@app.command("watch")
def watch_batch(context: typer.Context, batch: BatchArgument, as_json: AsJson = False) -> None:
    """Follow a batch to its end; exit code 1 unless it succeeded."""
    with connect_client(context) as client:
        watch_to_end(client, batch, as_json)


@app.command("pause")
def pause_batch(context: typer.Context, batch: BatchArgument, as_json: AsJson = False) -> None:
    """Start no more of its jobs."""
    _control_batch(context, batch, "pause", as_json)


@app.command("resume")
def resume_batch(context: typer.Context, batch: BatchArgument, as_json: AsJson = False) -> None:
    """Start its jobs again."""
    _control_batch(context, batch, "resume", as_json)


@app.command("cancel")
def cancel_batch(context: typer.Context, batch: BatchArgument, as_json: AsJson = False) -> None:
    """Cancel everything that is not done."""
    _control_batch(context, batch, "cancel", as_json)


@app.command("retry")
def retry_batch(context: typer.Context, batch: BatchArgument, as_json: AsJson = False) -> None:
    """Run again what failed."""
    _control_batch(context, batch, "retry", as_json)


@app.command("diff")
def show_diff(context: typer.Context, batch: BatchArgument, as_json: AsJson = False) -> None:
    """Show what a batch has changed, compared with the results of before."""
    from api.client.render.batches import build_diff_table

    with connect_client(context) as client:
        print_record(client.get_batch_diff(batch), as_json, build_diff_table)


def report_batch(client: ApiClient, batch: JsonObject, wait: bool, as_json: bool) -> None:
    """Print the id of a batch, or follow the batch to its end."""
    if wait:
        watch_to_end(client, batch["id"], as_json)
    else:
        print_line(json.dumps(batch, indent=2) if as_json else batch["id"])


def watch_to_end(client: ApiClient, batch_id: str, as_json: bool) -> None:
    """Follow a batch to its end; exit code 1 unless it succeeded."""
    from api.client.render.batches import follow_batch, format_batch_line

    try:
        batch = follow_batch(client, batch_id, create_console(stderr=True))
    except KeyboardInterrupt:
        print_errors([f"The batch goes on: sceneworks batch watch {batch_id}"])
        raise typer.Exit(EXIT_INTERRUPTED) from None
    print_record(batch, as_json, format_batch_line)
    if batch["state"] != "succeeded":
        raise typer.Exit(EXIT_FAILED)


def _control_batch(context: typer.Context, batch: str, action: str, as_json: bool) -> None:
    from api.client.render.batches import format_batch_line

    with connect_client(context) as client:
        print_record(client.control_batch(batch, action), as_json, format_batch_line)
