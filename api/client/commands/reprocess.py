"""`sceneworks reprocess`: bring videos up to date, or show the plan for it."""

from __future__ import annotations

from typing import Annotated

import typer

from api.client.commands.batches import WaitOption, report_batch
from api.client.commands.options import (
    CapOption,
    CodeOption,
    HoursOption,
    JobLabelOption,
    LabelFilterOption,
    OnlyOption,
    PriorityOption,
    SourceOption,
    VideoOption,
    ZoneOption,
    build_selection,
    build_work,
)
from api.client.terminal import AsJson, ModelOption, ParamOption, connect_client, print_record


def reprocess_videos(
    context: typer.Context,
    model: ModelOption,
    param: ParamOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the batch.")] = None,
    source: SourceOption = None,
    video: VideoOption = None,
    label: LabelFilterOption = None,
    only: OnlyOption = None,
    code: CodeOption = None,
    priority: PriorityOption = None,
    cap: CapOption = None,
    hours: HoursOption = None,
    timezone: ZoneOption = None,
    job_label: JobLabelOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would do, and do nothing.")] = False,
    wait: WaitOption = False,
    as_json: AsJson = False,
) -> None:
    """Run models on videos that lack them, or have them by other weights or parameters; prints the batch's id."""
    from api.client.render.batches import build_plan_table

    with connect_client(context) as client:
        selection = build_selection(client, source, video, label, only, code)
        body = build_work(
            model, param, selection, priority=priority, cap=cap, hours=hours, timezone=timezone, job_label=job_label
        )  # fmt: skip
        answer = client.reprocess_videos(body | ({"name": name} if name else {}), dry_run=dry_run)
        if dry_run:
            print_record(answer, as_json, build_plan_table)
        else:
            report_batch(client, answer, wait, as_json)
