"""`sceneworks schedule`: when an archive is worked on."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

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
from api.client.terminal import AsJson, ModelOption, ParamOption, out, shown

app = typer.Typer(help="Schedules: when an archive is worked on.", no_args_is_help=True)

SAID = (
    "name", "cron", "every_s", "timezone", "catch_up", "analyses", "selection", "priority", "cap", "hours", "labels",
)  # fmt: skip
"""What a schedule says, and an edit may change."""


class CatchUp(StrEnum):
    """What becomes of slots that passed while nothing ran."""

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
OtherModels = Annotated[list[str] | None, typer.Option("--model", "-m", help="Models in place of those it has.")]


@app.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    model: ModelOption,
    param: ParamOption = None,
    cron: CronOption = None,
    every: EveryOption = None,
    timezone: ZoneOption = None,
    catch_up: CatchUpOption = None,
    source: SourceOption = None,
    video: VideoOption = None,
    label: WithOption = None,
    only: OnlyOption = None,
    code: CodeOption = None,
    priority: PriorityOption = None,
    cap: CapOption = None,
    hours: HoursOption = None,
    job_label: JobLabelOption = None,
    as_json: AsJson = False,
) -> None:
    """Make a schedule; prints its id. Hours are in its time zone."""
    with archives(context) as service:
        chosen = selection(service, source, video, label, only, code)
        body = work(
            model, param, chosen, priority=priority, cap=cap, hours=hours, timezone=timezone, job_label=job_label
        )  # fmt: skip
        schedule = service.add_schedule(body | {"name": name} | _when(cron, every, timezone, catch_up))
        out(json.dumps(schedule, indent=2) if as_json else schedule["id"])


@app.command()
def edit(
    context: typer.Context,
    name: NameArgument,
    new_name: Annotated[str | None, typer.Option("--name", help="What to call it from now on.")] = None,
    model: OtherModels = None,
    param: ParamOption = None,
    cron: CronOption = None,
    every: EveryOption = None,
    timezone: ZoneOption = None,
    catch_up: CatchUpOption = None,
    source: SourceOption = None,
    video: VideoOption = None,
    label: WithOption = None,
    only: OnlyOption = None,
    code: CodeOption = None,
    priority: PriorityOption = None,
    cap: CapOption = None,
    hours: HoursOption = None,
    job_label: JobLabelOption = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given, from now on; all else stays."""
    from api.client.archive.screen import schedule_table

    with archives(context) as service:
        schedule = service.schedule(name)
        said = {key: schedule[key] for key in SAID}
        chosen = selection(service, source, video, label, only, code)
        chosen = said["selection"] | chosen if chosen else {}
        said |= work(
            model, param, chosen, priority=priority, cap=cap, hours=hours, timezone=timezone or said["timezone"],
            job_label=job_label,
        )  # fmt: skip
        said |= _when(cron, every, timezone, catch_up) | ({"name": new_name} if new_name else {})
        shown(service.change_schedule(schedule["id"], said), as_json, schedule_table)


@app.command("list")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List the schedules with their next times."""
    from api.client.archive.screen import schedules_table

    with archives(context) as service:
        shown(service.schedules(), as_json, schedules_table)


@app.command()
def show(context: typer.Context, name: NameArgument, as_json: AsJson = False) -> None:
    """Show a schedule, its next slots, and what became of the last."""
    from api.client.archive.screen import schedule_table

    with archives(context) as service:
        shown(service.schedule(name), as_json, schedule_table)


@app.command()
def pause(context: typer.Context, name: NameArgument, as_json: AsJson = False) -> None:
    """Let no slot fire until it is resumed."""
    _tell(context, name, "pause", as_json)


@app.command()
def resume(context: typer.Context, name: NameArgument, as_json: AsJson = False) -> None:
    """Fire again from the next slot on."""
    _tell(context, name, "resume", as_json)


@app.command()
def run(context: typer.Context, name: NameArgument, as_json: AsJson = False) -> None:
    """Do it now, beside the timetable; prints the batch's id."""
    with archives(context) as service:
        batch = service.tell_schedule(service.schedule(name)["id"], "run")
        out(json.dumps(batch, indent=2) if as_json else batch["id"])


@app.command()
def remove(context: typer.Context, name: NameArgument) -> None:
    """Forget a schedule; batches that it has made go on."""
    with archives(context) as service:
        schedule = service.schedule(name)
        service.remove_schedule(schedule["id"])
        out(schedule["id"])


def _when(cron: str | None, every: int | None, timezone: str | None, catch_up: CatchUp | None) -> dict[str, Any]:
    """The timetable, as far as it is given: cron takes the place of an interval, and the other way round."""
    said: dict[str, Any] = {}
    if cron is not None or every is not None:
        said |= {"cron": cron, "every_s": every}
    if timezone is not None:
        said["timezone"] = timezone
    if catch_up is not None:
        said["catch_up"] = catch_up.value
    return said


def _tell(context: typer.Context, name: str, verb: str, as_json: bool) -> None:
    from api.client.archive.screen import schedule_table

    with archives(context) as service:
        shown(service.tell_schedule(service.schedule(name)["id"], verb), as_json, schedule_table)
