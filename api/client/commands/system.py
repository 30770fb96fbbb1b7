"""`sceneworks up` and `sceneworks demo`: the whole system on this machine.

These two commands are the only place where the client imports `api.localstack`, and they do it when they run: the
other commands work without the packages of the extra `local`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from api.client.terminal import (
    EXIT_FAILED,
    EXIT_REFUSED,
    ParamOption,
    create_console,
    exit_on_error,
    parse_analyses,
    print_errors,
)

app = typer.Typer()

FolderOption = Annotated[Path, typer.Option("--dir", help="Folder of the system: servers, files, logs.")]
PortOption = Annotated[int, typer.Option(help="Port of the API; the next free one when taken.")]
FlowerPortOption = Annotated[int, typer.Option(help="Port of Flower; likewise.")]


@app.command("up")
def start_system(
    folder: FolderOption = Path("var"), port: PortOption = 8000, flower_port: FlowerPortOption = 5555
) -> None:
    """Run the whole system on this machine until Ctrl-C."""
    from api.localstack.demo import serve_stack

    with _exit_on_stack_error():
        serve_stack(create_console(), folder, (port, flower_port))


@app.command("demo")
def run_demo(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="A video; a short sample clip when not given.")] = None,
    folder: FolderOption = Path("var"),
    port: PortOption = 8000,
    flower_port: FlowerPortOption = 5555,
    param: ParamOption = None,
) -> None:
    """Run the whole system, find the shots of a video, and stay up until Ctrl-C (in a terminal)."""
    from api.localstack.demo import run_shots_demo

    with _exit_on_stack_error():
        params = parse_analyses(["shots"], param)[0]["params"]
        if not run_shots_demo(create_console(), file, params, folder, (port, flower_port), context.obj.key):
            raise typer.Exit(EXIT_FAILED)


@contextmanager
def _exit_on_stack_error() -> Iterator[None]:
    """Turn an error of the service or of the local stack into a message and an exit code."""
    from api.localstack.errors import FolderInUse

    try:
        with exit_on_error():
            yield
    except FolderInUse as error:
        print_errors([str(error)])
        raise typer.Exit(EXIT_REFUSED) from None
