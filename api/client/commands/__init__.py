"""The command line program `sceneworks`, put together from one module for each noun.

What is slow to import (httpx, rich, the local stack) is imported inside the command that needs it, so that `--help`
answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from api.client.commands import batches, jobs, queues, reprocess, results, schedules, search, sources, system
from api.client.terminal import ServiceAddress

app = typer.Typer(
    help="Turn long videos into structure. Exit codes: 0 done, 1 the job did not succeed, 2 refused, 3 no answer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def set_address(
    context: typer.Context,
    url: Annotated[str, typer.Option(envvar="SCENEWORKS_URL", help="The service.")] = "http://127.0.0.1:8000",
    key: Annotated[str, typer.Option(envvar="SCENEWORKS_API_KEY", help="API key.", show_default=False)] = "",
) -> None:
    """Turn long videos into structure. Exit codes: 0 done, 1 the job did not succeed, 2 refused, 3 no answer."""
    context.obj = ServiceAddress(url, key)


def main() -> None:
    """Run the program: the entry point of the installed command."""
    app()


# An app without a name adds its commands to the top level: `sceneworks submit`, not `sceneworks jobs submit`.
for top_level_app in (system.app, jobs.app, results.app, search.app):
    app.add_typer(top_level_app)
app.add_typer(sources.app, name="source")
app.add_typer(batches.app, name="batch")
app.add_typer(schedules.app, name="schedule")
app.add_typer(queues.app, name="queue")
app.command("reprocess")(reprocess.reprocess_videos)
