"""The commands for archives: sources, batches, schedules, reprocessing, queues."""

from __future__ import annotations

import typer

from api.client.commands import batches, queues, reprocess, schedules, sources


def register_commands(app: typer.Typer) -> None:
    """Make them commands of the program."""
    app.add_typer(sources.app, name="source")
    app.add_typer(batches.app, name="batch")
    app.add_typer(schedules.app, name="schedule")
    app.add_typer(queues.app, name="queue")
    app.command("reprocess")(reprocess.reprocess_videos)
