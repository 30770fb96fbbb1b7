"""`sceneworks similar`: search by example among the embeddings of videos and shots."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated

import typer

from api.client.commands.options import FormatOption, OutputFormat
from api.client.terminal import connect_client, create_console, print_line

app = typer.Typer()


class RankUnit(StrEnum):
    """What is ranked by similarity."""

    VIDEO = "video"
    SHOT = "shot"


@app.command("similar")
def search_similar(
    context: typer.Context,
    video: Annotated[str, typer.Argument(metavar="VIDEO", help="Id of a video, or of a job about it.")],
    shot: Annotated[int | None, typer.Option(min=0, help="Search by this shot; its # in the results.")] = None,
    start: Annotated[float | None, typer.Option(min=0, help="Search by the shots from this second on.")] = None,
    end: Annotated[float | None, typer.Option(min=0, help="Search by the shots before this second.")] = None,
    per: Annotated[
        RankUnit | None, typer.Option(help="Rank videos, or shots; by default the same as the example.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME:VALUE", help="Only videos of such a job; may be given again.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Fingerprint, where the video has embeddings of several.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Number of neighbours.")] = 20,
    output_format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Find videos or shots that look and move like a video, a shot or a range of it."""
    from api.client.render.csv import write_similar_csv
    from api.client.render.search import build_similar_table

    options = {"seq": shot, "start_s": start, "end_s": end, "per": per, "weights": weights}
    query = [(name, str(value)) for name, value in options.items() if value is not None]
    with connect_client(context) as client:
        video_id = client.get_job(video)["video_id"] if video.startswith("job_") else video
        answer = client.search_similar(video_id, query + [("label", pair) for pair in label or []], limit)
        if output_format is OutputFormat.JSON:
            print_line(json.dumps(answer, indent=2))
        elif output_format is OutputFormat.JSONL:
            for item in answer["items"]:
                print_line(json.dumps(item))
        elif output_format is OutputFormat.CSV:
            write_similar_csv(answer["items"], sys.stdout)
        else:
            create_console().print(build_similar_table(answer))
