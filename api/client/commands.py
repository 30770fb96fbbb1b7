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

from api.client.archive import add_to
from api.client.terminal import (
    FAILED,
    INTERRUPTED,
    Address,
    AsJson,
    ModelOption,
    ParamOption,
    complain,
    connected,
    console,
    out,
    read_analyses,
    said,
    shown,
)

if TYPE_CHECKING:
    from rich.console import Console

    from api.client.service import Record, Service

LOOK_EVERY_S = 0.4

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


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


class Per(StrEnum):
    """What is ranked by likeness."""

    VIDEO = "video"
    SHOT = "shot"


FormatOption = Annotated[Format, typer.Option("--format", "-f", help="table, json, jsonl or csv.")]


@app.callback()
def address(
    context: typer.Context,
    url: Annotated[str, typer.Option(envvar="SCENEWORKS_URL", help="The service.")] = "http://127.0.0.1:8000",
    key: Annotated[str, typer.Option(envvar="SCENEWORKS_API_KEY", help="API key.", show_default=False)] = "",
) -> None:
    """Turn long videos into structure. Exit codes: 0 done, 1 the job did not succeed, 2 refused, 3 no answer."""
    context.obj = Address(url, key)


@app.command()
def up(folder: FolderOption = Path("var"), port: PortOption = 8000, flower_port: FlowerPortOption = 5555) -> None:
    """Run the whole system on this machine until Ctrl-C."""
    from api.local.demo import serve

    with said():
        serve(console(), folder, (port, flower_port))


@app.command()
def demo(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="A video; a short clip of its own when not given.")] = None,
    folder: FolderOption = Path("var"),
    port: PortOption = 8000,
    flower_port: FlowerPortOption = 5555,
    param: ParamOption = None,
) -> None:
    """Run the whole system, find the shots of a video, and stay up until Ctrl-C (in a terminal)."""
    from api.local.demo import show

    with said():
        params = read_analyses(["shots"], param)[0]["params"]
        if not show(console(), file, params, folder, (port, flower_port), context.obj.key):
            raise typer.Exit(FAILED)


@app.command()
def submit(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A video.", exists=True, dir_okay=False, readable=True)],
    model: ModelOption,
    param: ParamOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the job has ended, showing progress.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send a video and ask for models; prints the job's id."""
    with connected(context) as service:
        job = send(service, file, read_analyses(model, param), console(stderr=True))
        if wait:
            _finish(service, job["id"], as_json)
        else:
            out(json.dumps(job, indent=2) if as_json else job["id"])


@app.command()
def jobs(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=200, help="So many.")] = 20,
    state: Annotated[str | None, typer.Option(help="Only these states, comma separated.")] = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    from api.client.screen import jobs_table

    with connected(context) as service:
        found = service.jobs(limit, state)
        shown(found, as_json, jobs_table)


@app.command()
def show(context: typer.Context, job: JobArgument, as_json: AsJson = False) -> None:
    """Show one job with its runs and stages."""
    from api.client.screen import run_errors, runs_table

    with connected(context) as service:
        found = service.job(job)
        shown(found, as_json, runs_table)
        if not as_json:
            complain(run_errors(found))


@app.command()
def watch(context: typer.Context, job: JobArgument, as_json: AsJson = False) -> None:
    """Follow a job to its end; exit code 1 unless it succeeded."""
    with connected(context) as service:
        _finish(service, job, as_json)


@app.command()
def results(
    context: typer.Context,
    job: JobArgument,
    form: FormatOption = Format.TABLE,
) -> None:
    """Print the results of a job."""
    from api.client.screen import results_table

    with connected(context) as service:
        found = service.results(job)
        if form is Format.JSON:
            out(json.dumps(list(found), indent=2))
        elif form is Format.JSONL:
            for result in found:
                out(json.dumps(result))
        elif form is Format.CSV:
            _csv(found)
        else:
            console().print(results_table(found))


@app.command()
def similar(
    context: typer.Context,
    video: Annotated[str, typer.Argument(metavar="VIDEO", help="Id of a video, or of a job about it.")],
    shot: Annotated[int | None, typer.Option(min=0, help="Ask with this shot; its # in the results.")] = None,
    start: Annotated[float | None, typer.Option(min=0, help="Ask with the shots from this second on.")] = None,
    end: Annotated[float | None, typer.Option(min=0, help="Ask with the shots before this second.")] = None,
    per: Annotated[Per | None, typer.Option(help="Rank videos, or shots; by default what was asked with.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME:VALUE", help="Only videos of such a job; may be given again.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Fingerprint, where the video has embeddings of several.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many.")] = 20,
    form: FormatOption = Format.TABLE,
) -> None:
    """Find videos or shots that look and move like a video, a shot or a range of it."""
    from api.client.screen import likeness_table

    asked = {"seq": shot, "start_s": start, "end_s": end, "per": per, "weights": weights}
    query = [(name, str(value)) for name, value in asked.items() if value is not None]
    with connected(context) as service:
        video_id = service.job(video)["video_id"] if video.startswith("job_") else video
        found = service.similar(video_id, query + [("label", pair) for pair in label or []], limit)
        if form is Format.JSON:
            out(json.dumps(found, indent=2))
        elif form is Format.JSONL:
            for item in found["items"]:
                out(json.dumps(item))
        elif form is Format.CSV:
            _likeness_csv(found["items"])
        else:
            console().print(likeness_table(found))


@app.command()
def cancel(context: typer.Context, job: JobArgument, as_json: AsJson = False) -> None:
    """Cancel a job."""
    with connected(context) as service:
        found = service.cancel(job)
        shown(found, as_json, lambda record: f"{record['id']} {record['state']}")


@app.command()
def retry(context: typer.Context, job: JobArgument, as_json: AsJson = False) -> None:
    """Try again what failed or was cancelled."""
    with connected(context) as service:
        found = service.retry(job)
        shown(found, as_json, lambda record: f"{record['id']} {record['state']}")


@app.command()
def models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the models with their parameters."""
    from api.client.screen import models_table

    with connected(context) as service:
        shown(service.models(), as_json, models_table)


add_to(app)


def send(service: Service, file: Path, analyses: list[Record], console: Console) -> Record:
    """Upload a file, with a bar, and submit its job."""
    from api.client.screen import uploading

    with uploading(console) as bars:
        task = bars.add_task("upload", total=file.stat().st_size)
        video = service.upload(file, lambda sent: bars.update(task, advance=sent))
    return service.submit(video["id"], analyses)


def _finish(service: Service, job_id: str, as_json: bool) -> None:
    from api.client.screen import follow, run_errors

    try:
        job = follow(service, job_id, console(stderr=True), lambda: time.sleep(LOOK_EVERY_S))
    except KeyboardInterrupt:
        complain([f"The job goes on: sceneworks watch {job_id}"])
        raise typer.Exit(INTERRUPTED) from None
    shown(job, as_json, lambda record: f"{record['id']} {record['state']}")
    complain(run_errors(job))
    if job["state"] != "succeeded":
        raise typer.Exit(FAILED)


TIMES = [(end, name) for end in ("start", "end") for name in ("frame", "seconds", "pts", "timecode")]


def _csv(found: Iterable[Record]) -> None:
    import csv

    writer = csv.writer(sys.stdout)
    writer.writerow(["model", "kind", "seq", *(f"{end}_{name}" for end, name in TIMES), "score", "data"])
    for result in found:
        row = [result.get("model"), result["kind"], result["seq"], *_times(result), result["score"]]
        writer.writerow([*row, json.dumps(result["data"])])


def _likeness_csv(found: Iterable[Record]) -> None:
    import csv

    writer = csv.writer(sys.stdout)
    writer.writerow(["similarity", "video_id", "name", "run_id", "seq", *(f"{end}_{name}" for end, name in TIMES)])
    for item in found:
        video = item["video"]
        writer.writerow([item["similarity"], video["id"], video["name"], item["run_id"], item["seq"], *_times(item)])


def _times(record: Record) -> list[Any]:
    return [(record[end] or {}).get(name) for end, name in TIMES]
