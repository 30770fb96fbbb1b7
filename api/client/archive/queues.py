"""`sceneworks queue`: how the queues stand, and what is decided about them."""

from __future__ import annotations

from typing import Annotated

import typer

from api.client.archive.options import archives
from api.client.terminal import AsJson, shown

app = typer.Typer(help="Queues: one for each model.", no_args_is_help=True)

QueueArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model.")]


@app.command("list")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List the queues with their depth and age."""
    from api.client.archive.screen import queues_table

    with archives(context) as service:
        shown(service.queues(), as_json, queues_table)


@app.command()
def pause(context: typer.Context, model: QueueArgument, as_json: AsJson = False) -> None:
    """Let no run of the model start; those that run go on."""
    _decide(context, model, "paused", as_json)


@app.command()
def drain(context: typer.Context, model: QueueArgument, as_json: AsJson = False) -> None:
    """Do what is queued, refuse new jobs, let batches wait."""
    _decide(context, model, "draining", as_json)


@app.command()
def resume(context: typer.Context, model: QueueArgument, as_json: AsJson = False) -> None:
    """Open the queue again."""
    _decide(context, model, "open", as_json)


def _decide(context: typer.Context, model: str, mode: str, as_json: bool) -> None:
    with archives(context) as service:
        shown(service.decide_queue(model, mode), as_json, lambda queue: f"{queue['model']} {queue['mode']}")
