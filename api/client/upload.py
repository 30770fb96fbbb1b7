"""Upload a video with a progress bar and submit its job."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from api.client.http import ApiClient, JsonObject


def upload_and_submit(client: ApiClient, file: Path, analyses: list[JsonObject], console: Console) -> JsonObject:
    """Upload a file, with a bar, and submit its job."""
    from api.client.render.jobs import create_upload_bar

    with create_upload_bar(console) as bars:
        task = bars.add_task("upload", total=file.stat().st_size)
        video = client.upload_video(file, lambda sent: bars.update(task, advance=sent))
    return client.create_job(video["id"], analyses)
