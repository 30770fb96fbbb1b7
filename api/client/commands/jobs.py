"""`sceneworks submit`, `jobs`, `show`, `watch`, `cancel`, `retry` and `models`: one video and the models asked for."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.client.terminal import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    AsJson,
    ModelOption,
    ParamOption,
    connect_client,
    create_console,
    parse_analyses,
    print_errors,
    print_line,
    print_record,
)

if TYPE_CHECKING:
    from api.client.http import ApiClient, JsonObject

POLL_INTERVAL_S = 0.4

app = typer.Typer()

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job.")]


@app.command("submit")
def submit_job(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A video.", exists=True, dir_okay=False, readable=True)],
    model: ModelOption,
    param: ParamOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until the job has ended, showing progress.")] = False,
    as_json: AsJson = False,
) -> None:
    """Upload a video and run models on it; prints the job's id."""
    from api.client.render.upload import upload_and_submit

    with connect_client(context) as client:
        job = upload_and_submit(client, file, parse_analyses(model, param), create_console(stderr=True))
        if wait:
            _watch_to_end(client, job["id"], as_json)
        else:
            print_line(json.dumps(job, indent=2) if as_json else job["id"])


@app.command("jobs")
def list_jobs(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Number of jobs.")] = 20,
    state: Annotated[str | None, typer.Option(help="Only these states, comma separated.")] = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    from api.client.render.jobs import build_jobs_table

    with connect_client(context) as client:
        print_record(client.list_jobs(limit, state), as_json, build_jobs_table)


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


@app.command("cancel")
def cancel_job(context: typer.Context, job: JobArgument, as_json: AsJson = False) -> None:
    """Cancel a job."""
    with connect_client(context) as client:
        print_record(client.cancel_job(job), as_json, _format_job_line)


@app.command("retry")
def retry_job(context: typer.Context, job: JobArgument, as_json: AsJson = False) -> None:
    """Try again what failed or was cancelled."""
    with connect_client(context) as client:
        print_record(client.retry_job(job), as_json, _format_job_line)


@app.command("models")
def list_models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the models with their parameters."""
    from api.client.render.models import build_models_table

    with connect_client(context) as client:
        print_record(client.list_models(), as_json, build_models_table)


def _watch_to_end(client: ApiClient, job_id: str, as_json: bool) -> None:
    """Follow a job to its end, then exit with 1 unless it succeeded. Ctrl-C stops the watching, not the job."""
    from api.client.render.jobs import follow_job, format_run_errors

    try:
        job = follow_job(client, job_id, create_console(stderr=True), lambda: time.sleep(POLL_INTERVAL_S))
    except KeyboardInterrupt:
        print_errors([f"The job goes on: sceneworks watch {job_id}"])
        raise typer.Exit(EXIT_INTERRUPTED) from None
    print_record(job, as_json, _format_job_line)
    print_errors(format_run_errors(job))
    if job["state"] != "succeeded":
        raise typer.Exit(EXIT_FAILED)


def _format_job_line(job: JsonObject) -> str:
    return f"{job['id']} {job['state']}"
