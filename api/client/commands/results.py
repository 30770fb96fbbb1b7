"""`sceneworks results`: what the runs of a job have yielded."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from api.client.commands.options import FormatOption, OutputFormat
from api.client.terminal import connect_client, create_console, print_line

app = typer.Typer()


@app.command("results")
def print_results(
    context: typer.Context,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of a job.")],
    output_format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Print the results of a job."""
    from api.client.render.csv import write_results_csv
    from api.client.render.results import build_results_table

    with connect_client(context) as client:
        results = client.iter_results(job)
        if output_format is OutputFormat.JSON:
            print_line(json.dumps(list(results), indent=2))
        elif output_format is OutputFormat.JSONL:
            for result in results:
                print_line(json.dumps(result))
        elif output_format is OutputFormat.CSV:
            write_results_csv(results, sys.stdout)
        else:
            create_console().print(build_results_table(results))
