"""The commands of `sceneworks`. What is heavy is imported by the command that needs it: `--help` stays quick."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.client.commands import register_commands
from api.client.terminal import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    AsJson,
    ModelOption,
    ParamOption,
    ServiceAddress,
    connect_client,
    create_console,
    exit_on_error,
    print_errors,
    print_line,
    print_record,
    read_analyses,
)
from api.client.upload import upload_and_submit

if TYPE_CHECKING:
    from api.client.http import ApiClient, JsonObject

POLL_INTERVAL_S = 0.4

app = typer.Typer(
    help="Turn long videos into structure. Exit codes: 0 done, 1 the job did not succeed, 2 refused, 3 no answer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job.")]
FolderOption = Annotated[Path, typer.Option("--dir", help="Folder of the system: servers, files, logs.")]
PortOption = Annotated[int, typer.Option(help="Port of the API; the next free one when taken.")]
FlowerPortOption = Annotated[int, typer.Option(help="Port of Flower; likewise.")]


class OutputFormat(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


class RankUnit(StrEnum):
    """What is ranked by likeness."""

    VIDEO = "video"
    SHOT = "shot"


FormatOption = Annotated[OutputFormat, typer.Option("--format", "-f", help="table, json, jsonl or csv.")]


@app.callback()
def set_address(
    context: typer.Context,
    url: Annotated[str, typer.Option(envvar="SCENEWORKS_URL", help="The service.")] = "http://127.0.0.1:8000",
    key: Annotated[str, typer.Option(envvar="SCENEWORKS_API_KEY", help="API key.", show_default=False)] = "",
) -> None:
    """Turn long videos into structure. Exit codes: 0 done, 1 the job did not succeed, 2 refused, 3 no answer."""
    context.obj = ServiceAddress(url, key)


@app.command("up")
def start_system(
    folder: FolderOption = Path("var"), port: PortOption = 8000, flower_port: FlowerPortOption = 5555
) -> None:
    """Run the whole system on this machine until Ctrl-C."""
    from api.localstack.demo import serve_stack

    with exit_on_error():
        serve_stack(create_console(), folder, (port, flower_port))


@app.command("demo")
def run_demo(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="A video; a short clip of its own when not given.")] = None,
    folder: FolderOption = Path("var"),
    port: PortOption = 8000,
    flower_port: FlowerPortOption = 5555,
    param: ParamOption = None,
) -> None:
    """Run the whole system, find the shots of a video, and stay up until Ctrl-C (in a terminal)."""
    from api.localstack.demo import run_shots_demo

    with exit_on_error():
        params = read_analyses(["shots"], param)[0]["params"]
        if not run_shots_demo(create_console(), file, params, folder, (port, flower_port), context.obj.key):
            raise typer.Exit(EXIT_FAILED)


@app.command("submit")
def submit_job(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A video.", exists=True, dir_okay=False, readable=True)],
    model: ModelOption,
    param: ParamOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the job has ended, showing progress.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send a video and ask for models; prints the job's id."""
    with connect_client(context) as client:
        job = upload_and_submit(client, file, read_analyses(model, param), create_console(stderr=True))
        if wait:
            _watch_to_end(client, job["id"], as_json)
        else:
            print_line(json.dumps(job, indent=2) if as_json else job["id"])


@app.command("jobs")
def list_jobs(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=200, help="So many.")] = 20,
    state: Annotated[str | None, typer.Option(help="Only these states, comma separated.")] = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    from api.client.render.jobs import build_jobs_table

    with connect_client(context) as client:
        jobs = client.list_jobs(limit, state)
        print_record(jobs, as_json, build_jobs_table)


@app.command("show")
def show_job(context: typer.Context, job: JobArgument, as_json: AsJson = False) -> None:
    """Show one job with its runs and stages."""
    from api.client.render.jobs import build_runs_table, format_run_errors

    with connect_client(context) as client:
        record = client.get_job(job)
        print_record(record, as_json, build_runs_table)
        if not as_json:
            print_errors(format_run_errors(record))


@app.command("watch")
def watch_job(context: typer.Context, job: JobArgument, as_json: AsJson = False) -> None:
    """Follow a job to its end; exit code 1 unless it succeeded."""
    with connect_client(context) as client:
        _watch_to_end(client, job, as_json)


@app.command("results")
def print_results(
    context: typer.Context,
    job: JobArgument,
    output_format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Print the results of a job."""
    from api.client.render.jobs import build_results_table

    with connect_client(context) as client:
        results = client.iter_results(job)
        if output_format is OutputFormat.JSON:
            print_line(json.dumps(list(results), indent=2))
        elif output_format is OutputFormat.JSONL:
            for result in results:
                print_line(json.dumps(result))
        elif output_format is OutputFormat.CSV:
            _write_results_csv(results)
        else:
            create_console().print(build_results_table(results))


@app.command("similar")
def search_similar(
    context: typer.Context,
    video: Annotated[str, typer.Argument(metavar="VIDEO", help="Id of a video, or of a job about it.")],
    shot: Annotated[int | None, typer.Option(min=0, help="Ask with this shot; its # in the results.")] = None,
    start: Annotated[float | None, typer.Option(min=0, help="Ask with the shots from this second on.")] = None,
    end: Annotated[float | None, typer.Option(min=0, help="Ask with the shots before this second.")] = None,
    per: Annotated[RankUnit | None, typer.Option(help="Rank videos, or shots; by default what was asked with.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME:VALUE", help="Only videos of such a job; may be given again.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Fingerprint, where the video has embeddings of several.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many.")] = 20,
    output_format: FormatOption = OutputFormat.TABLE,
) -> None:
    """Find videos or shots that look and move like a video, a shot or a range of it."""
    from api.client.render.jobs import build_similar_table

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
            _write_similar_csv(answer["items"])
        else:
            create_console().print(build_similar_table(answer))


@app.command("cancel")
def cancel_job(context: typer.Context, job: JobArgument, as_json: AsJson = False) -> None:
    """Cancel a job."""
    with connect_client(context) as client:
        found = client.cancel_job(job)
        print_record(found, as_json, lambda record: f"{record['id']} {record['state']}")


@app.command("retry")
def retry_job(context: typer.Context, job: JobArgument, as_json: AsJson = False) -> None:
    """Try again what failed or was cancelled."""
    with connect_client(context) as client:
        found = client.retry_job(job)
        print_record(found, as_json, lambda record: f"{record['id']} {record['state']}")


@app.command("models")
def list_models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the models with their parameters."""
    from api.client.render.jobs import build_models_table

    with connect_client(context) as client:
        print_record(client.list_models(), as_json, build_models_table)


register_commands(app)


def _watch_to_end(client: ApiClient, job_id: str, as_json: bool) -> None:
    from api.client.render.jobs import follow_job, format_run_errors

    try:
        job = follow_job(client, job_id, create_console(stderr=True), lambda: time.sleep(POLL_INTERVAL_S))
    except KeyboardInterrupt:
        print_errors([f"The job goes on: sceneworks watch {job_id}"])
        raise typer.Exit(EXIT_INTERRUPTED) from None
    print_record(job, as_json, lambda record: f"{record['id']} {record['state']}")
    print_errors(format_run_errors(job))
    if job["state"] != "succeeded":
        raise typer.Exit(EXIT_FAILED)


TIME_COLUMNS = [(end, name) for end in ("start", "end") for name in ("frame", "seconds", "pts", "timecode")]


def _write_results_csv(results: Iterable[JsonObject]) -> None:
    import csv

    writer = csv.writer(sys.stdout)
    writer.writerow(["model", "kind", "seq", *(f"{end}_{name}" for end, name in TIME_COLUMNS), "score", "data"])
    for result in results:
        row = [result.get("model"), result["kind"], result["seq"], *_get_time_cells(result), result["score"]]
        writer.writerow([*row, json.dumps(result["data"])])


def _write_similar_csv(items: Iterable[JsonObject]) -> None:
    import csv

    writer = csv.writer(sys.stdout)
    writer.writerow(
        ["similarity", "video_id", "name", "run_id", "seq", *(f"{end}_{name}" for end, name in TIME_COLUMNS)]
    )
    for item in items:
        video = item["video"]
        writer.writerow(
            [item["similarity"], video["id"], video["name"], item["run_id"], item["seq"], *_get_time_cells(item)]
        )


def _get_time_cells(record: JsonObject) -> list[Any]:
    return [(record[end] or {}).get(name) for end, name in TIME_COLUMNS]
