"""`sceneworks schedule`: batches by a timetable."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

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
from api.client.terminal import AsJson, ModelOption, ParamOption, connect_client, print_line, print_record

app = typer.Typer(help="Schedules: batches by a timetable.", no_args_is_help=True)

EDITABLE_FIELDS = (
    "name", "cron", "every_s", "timezone", "catch_up", "analyses", "selection", "priority", "cap", "hours", "labels",
)  # fmt: skip
"""Fields of a schedule that an edit may change; the rest of its record is derived."""


class CatchUp(StrEnum):
    """What is done about slots that passed while nothing ran."""

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of a schedule.")]
CronOption = Annotated[str | None, typer.Option(help='Five fields, such as "30 2 * * *".')]
EveryOption = Annotated[int | None, typer.Option(metavar="SECONDS", help="An interval in place of cron.")]
CatchUpOption = Annotated[
    CatchUp | None,
    typer.Option(help="Slots that passed while nothing ran: skip, make up for once, or all.", show_default="once"),
]
ReplacementModelsOption = Annotated[
    list[str] | None, typer.Option("--model", "-m", help="Models in place of those it has.")
]


@app.command("add")
def add_schedule(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")],
    model: ModelOption,
    param: ParamOption = None,
    cron: CronOption = None,
    every: EveryOption = None,
    timezone: ZoneOption = None,
    catch_up: CatchUpOption = None,
    source: SourceOption = None,
    video: VideoOption = None,
    label: LabelFilterOption = None,
    only: OnlyOption = None,
    code: CodeOption = None,
    priority: PriorityOption = None,
    cap: CapOption = None,
    hours: HoursOption = None,
    job_label: JobLabelOption = None,
    as_json: AsJson = False,
) -> None:
    """Make a schedule; prints its id. Hours are in its time zone."""
    with connect_client(context) as client:
        selection = build_selection(client, source, video, label, only, code)
        body = build_work(
            model, param, selection, priority=priority, cap=cap, hours=hours, timezone=timezone, job_label=job_label
        )  # fmt: skip
        schedule = client.add_schedule(body | {"name": name} | _build_timetable(cron, every, timezone, catch_up))
        print_line(json.dumps(schedule, indent=2) if as_json else schedule["id"])


@app.command("edit")
def edit_schedule(
    context: typer.Context,
    name: NameArgument,
    new_name: Annotated[str | None, typer.Option("--name", help="What to call it from now on.")] = None,
    model: ReplacementModelsOption = None,
    param: ParamOption = None,
    cron: CronOption = None,
    every: EveryOption = None,
    timezone: ZoneOption = None,
    catch_up: CatchUpOption = None,
    source: SourceOption = None,
    video: VideoOption = None,
    label: LabelFilterOption = None,
    only: OnlyOption = None,
    code: CodeOption = None,
    priority: PriorityOption = None,
    cap: CapOption = None,
    hours: HoursOption = None,
    job_label: JobLabelOption = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given, from now on; all else stays."""
    from api.client.render.schedules import build_schedule_table

    with connect_client(context) as client:
        schedule = client.get_schedule(name)
        body = {key: schedule[key] for key in EDITABLE_FIELDS}
        selection = build_selection(client, source, video, label, only, code)
        selection = body["selection"] | selection if selection else {}
        body |= build_work(
            model, param, selection, priority=priority, cap=cap, hours=hours, timezone=timezone or body["timezone"],
            job_label=job_label,
        )  # fmt: skip
        body |= _build_timetable(cron, every, timezone, catch_up) | ({"name": new_name} if new_name else {})
        print_record(client.replace_schedule(schedule["id"], body), as_json, build_schedule_table)


@app.command("list")
def list_schedules(context: typer.Context, as_json: AsJson = False) -> None:
    """List the schedules with their next times."""
    from api.client.render.schedules import build_schedules_table

    with connect_client(context) as client:
        print_record(client.list_schedules(), as_json, build_schedules_table)


@app.command("show")
def show_schedule(context: typer.Context, name: NameArgument, as_json: AsJson = False) -> None:
    """Show a schedule, its next slots, and the outcome of the last."""
    from api.client.render.schedules import build_schedule_table

    with connect_client(context) as client:
        print_record(client.get_schedule(name), as_json, build_schedule_table)


@app.command("pause")
def pause_schedule(context: typer.Context, name: NameArgument, as_json: AsJson = False) -> None:
    """Fire no slot until it is resumed."""
    _control_schedule(context, name, "pause", as_json)


@app.command("resume")
def resume_schedule(context: typer.Context, name: NameArgument, as_json: AsJson = False) -> None:
    """Fire again from the next slot on."""
    _control_schedule(context, name, "resume", as_json)


@app.command("run")
def run_schedule(context: typer.Context, name: NameArgument, as_json: AsJson = False) -> None:
    """Run it now, in addition to the timetable; prints the batch's id."""
    with connect_client(context) as client:
        batch = client.control_schedule(client.get_schedule(name)["id"], "run")
        print_line(json.dumps(batch, indent=2) if as_json else batch["id"])


@app.command("remove")
def remove_schedule(context: typer.Context, name: NameArgument) -> None:
    """Remove a schedule; its batches go on."""
    with connect_client(context) as client:
        schedule = client.get_schedule(name)
        client.remove_schedule(schedule["id"])
        print_line(schedule["id"])


def _build_timetable(
    cron: str | None, every: int | None, timezone: str | None, catch_up: CatchUp | None
) -> dict[str, Any]:
    """Build the fields of the timetable that are given. Cron replaces an interval, and the other way round."""
    timetable: dict[str, Any] = {}
    if cron is not None or every is not None:
        timetable |= {"cron": cron, "every_s": every}
    if timezone is not None:
        timetable["timezone"] = timezone
    if catch_up is not None:
        timetable["catch_up"] = catch_up.value
    return timetable


def _control_schedule(context: typer.Context, name: str, action: str, as_json: bool) -> None:
    from api.client.render.schedules import build_schedule_table

    with connect_client(context) as client:
        print_record(client.control_schedule(client.get_schedule(name)["id"], action), as_json, build_schedule_table)
