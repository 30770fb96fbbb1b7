"""`sceneworks reprocess`: bring an archive up to date, or say what that would come to."""

from __future__ import annotations

from typing import Annotated

import typer

from api.client.archive.batches import WaitOption, made
from api.client.archive.options import (
    CapOption,
    CodeOption,
    HoursOption,
    JobLabelOption,
    OnlyOption,
    PriorityOption,
    SourceOption,
    VideoOption,
    WithOption,
    ZoneOption,
    archives,
    selection,
    work,
)
from api.client.terminal import AsJson, ModelOption, ParamOption, shown


def reprocess(
    context: typer.Context,
    model: ModelOption,
    param: ParamOption = None,
    name: Annotated[str | None, typer.Option(help="What to call the batch.")] = None,
    source: SourceOption = None,
    video: VideoOption = None,
    label: WithOption = None,
    only: OnlyOption = None,
    code: CodeOption = None,
    priority: PriorityOption = None,
    cap: CapOption = None,
    hours: HoursOption = None,
    timezone: ZoneOption = None,
    job_label: JobLabelOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would come to, and do nothing.")] = False,
    wait: WaitOption = False,
    as_json: AsJson = False,
) -> None:
    """Run models on the films that lack them, or have them by other weights or parameters; prints the batch's id."""
    from api.client.archive.screen import plan_table

    with archives(context) as service:
        chosen = selection(service, source, video, label, only, code)
        body = work(
            model, param, chosen, priority=priority, cap=cap, hours=hours, timezone=timezone, job_label=job_label
        )  # fmt: skip
        answer = service.reprocess(body | ({"name": name} if name else {}), dry_run=dry_run)
        if dry_run:
            shown(answer, as_json, plan_table)
        else:
            made(service, answer, wait, as_json)
