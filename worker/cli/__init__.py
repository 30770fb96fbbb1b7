"""The command `sceneworks-worker`: run a model on a file, without queue, database or server.

torch is imported inside the commands that compute, so that `--help` and `weights list` stay fast.
"""

from __future__ import annotations

import sys

import typer

from shared.extras import ExtraMissing, missing_extras_explained
from worker.cli.errors import EXIT_REFUSED
from worker.cli.motion import motion_command
from worker.cli.run import run_command
from worker.cli.weights import weights_app

app = typer.Typer(
    help="Run models on this machine. Exit codes: 0 done, 1 failed, 2 refused.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run")(run_command)
app.command("motion")(motion_command)
app.add_typer(weights_app, name="weights")


@app.command("serve")
def serve_command() -> None:
    """Serve runs from the queue: the same as `python -m worker.main`."""
    from worker.main import main as start_worker

    start_worker()


def main() -> None:
    """Run the command line; entry point of `sceneworks-worker`."""
    try:
        with missing_extras_explained():
            app()
    except ExtraMissing as error:
        typer.echo(str(error), err=True)
        sys.exit(EXIT_REFUSED)
