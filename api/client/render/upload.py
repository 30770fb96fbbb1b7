"""Upload a video with a progress bar and submit its job."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from api.client.http import ApiClient, JsonObject


def upload_and_submit(client: ApiClient, file: Path, analyses: list[JsonObject], console: Console) -> JsonObject:
    """Upload a file, showing a bar in a terminal, and return the job that is created for it."""
    with _create_upload_bar(console) as bars:
        task = bars.add_task("upload", total=file.stat().st_size)
        video = client.upload_video(file, lambda sent: bars.update(task, advance=sent))
    return client.create_job(video["id"], analyses)


def _create_upload_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=32),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
