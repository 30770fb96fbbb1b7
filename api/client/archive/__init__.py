"""The commands for archives: sources, batches, schedules, reprocessing, queues."""

from __future__ import annotations

import typer

from api.client.archive import batches, queues, reprocess, schedules, sources


def add_to(app: typer.Typer) -> None:
    """Make them commands of the program."""
    app.add_typer(sources.app, name="archive")
    app.add_typer(batches.app, name="batch")
    app.add_typer(schedules.app, name="schedule")
    app.add_typer(queues.app, name="queue")
    app.command("reprocess")(reprocess.reprocess)
