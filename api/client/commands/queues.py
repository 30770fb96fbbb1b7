"""`sceneworks queue`: state and mode of the queue of each model."""

from __future__ import annotations

from typing import Annotated

import typer

from api.client.terminal import AsJson, connect_client, print_record

app = typer.Typer(help="Queues: one for each model.", no_args_is_help=True)

QueueArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model.")]


@app.command("list")
def list_queues(context: typer.Context, as_json: AsJson = False) -> None:
    """List the queues with their depth and age."""
    from api.client.render.queues import build_queues_table

    with connect_client(context) as client:
        print_record(client.list_queues(), as_json, build_queues_table)


@app.command("pause")
def pause_queue(context: typer.Context, model: QueueArgument, as_json: AsJson = False) -> None:
    """Start no run of the model; those that run go on."""
    _set_queue_mode(context, model, "paused", as_json)


@app.command("drain")
def drain_queue(context: typer.Context, model: QueueArgument, as_json: AsJson = False) -> None:
    """Finish what is queued, refuse new jobs, let batches wait."""
    _set_queue_mode(context, model, "draining", as_json)


@app.command("resume")
def resume_queue(context: typer.Context, model: QueueArgument, as_json: AsJson = False) -> None:
    """Open the queue again."""
    _set_queue_mode(context, model, "open", as_json)


def _set_queue_mode(context: typer.Context, model: str, mode: str, as_json: bool) -> None:
    with connect_client(context) as client:
        print_record(client.set_queue_mode(model, mode), as_json, lambda queue: f"{queue['model']} {queue['mode']}")
