"""Options that several commands share: which videos, what is done with them, and how many at a time."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.client.terminal import parse_analyses

if TYPE_CHECKING:
    from api.client.http import ApiClient, JsonObject


class OutputFormat(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


class OnlyFilter(StrEnum):
    """Which of the videos are selected."""

    ALL = "all"
    MISSING = "missing"
    OUTDATED = "outdated"
    MISSING_OR_OUTDATED = "missing_or_outdated"
    FAILED = "failed"


class JobPriority(StrEnum):
    """Priority of jobs."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


FormatOption = Annotated[OutputFormat, typer.Option("--format", "-f", help="table, json, jsonl or csv.")]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", metavar="NAME:VALUE", help="A label; may be given again.")
]
SourceOption = Annotated[
    list[str] | None, typer.Option("--source", help="Videos of this source, by name or id; may be given again.")
]
VideoOption = Annotated[list[str] | None, typer.Option("--video", help="This video, by id; may be given again.")]
LabelFilterOption = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME:VALUE", help="Videos with this label; may be given again."),
]
OnlyOption = Annotated[
    OnlyFilter | None,
    typer.Option(help="Videos that lack the model, have it by other weights or parameters than now, or failed."),
]
CodeOption = Annotated[str | None, typer.Option(help="With --only failed: those with this error code.")]
PriorityOption = Annotated[JobPriority | None, typer.Option(help="Priority of the jobs.", show_default="low")]
CapOption = Annotated[int | None, typer.Option(min=0, help="Jobs unfinished at once; 0: no limit.", show_default="32")]
HoursOption = Annotated[
    str | None, typer.Option(metavar="HH:MM-HH:MM", help="Jobs start in these hours only; `always` for all.")
]
ZoneOption = Annotated[str | None, typer.Option(help="Time zone, such as Europe/Berlin.", show_default="UTC")]
JobLabelOption = Annotated[
    list[str] | None,
    typer.Option("--job-label", metavar="NAME:VALUE", help="Label of the jobs; may be given again."),
]


def parse_labels(pairs: list[str] | None, option: str = "--label") -> dict[str, str]:
    """Parse labels, `show:x` -> {"show": "x"}; BadParameter for a pair without a name or a colon."""
    labels = {}
    for pair in pairs or []:
        name, separator, value = pair.partition(":")
        if not separator or not name:
            raise typer.BadParameter(f"{pair!r} is not NAME:VALUE", param_hint=option)
        labels[name] = value
    return labels


def build_selection(
    client: ApiClient,
    source: list[str] | None,
    video: list[str] | None,
    label: list[str] | None,
    only: OnlyFilter | None,
    code: str | None,
) -> JsonObject:
    """Build the `selection` of a request. Options that are not given are left out: the service has the defaults."""
    fields = {
        "sources": [client.get_source(name)["id"] for name in source or []],
        "videos": video,
        "labels": parse_labels(label),
        "only": only.value if only else None,
        "code": code,
    }
    return {name: value for name, value in fields.items() if value}


def build_work(
    model: list[str] | None,
    param: list[str] | None,
    selection: JsonObject,
    *,
    priority: JobPriority | None,
    cap: int | None,
    hours: str | None,
    timezone: str | None,
    job_label: list[str] | None,
) -> JsonObject:
    """Build the body of a batch or a schedule from options, without those that are not given."""
    body: dict[str, Any] = {}
    if model:
        body["analyses"] = parse_analyses(model, param)
    elif param:
        raise typer.BadParameter("Parameters go with --model.", param_hint="--param")
    if selection:
        body["selection"] = selection
    if priority:
        body["priority"] = priority.value
    if cap is not None:
        body["cap"] = cap or None  # 0 on the command line is null, no limit, in the API
    if hours is not None:
        body["hours"] = parse_hours(hours, timezone)
    if job_label:
        body["labels"] = parse_labels(job_label, "--job-label")
    return body


def parse_hours(text: str, timezone: str | None) -> JsonObject | None:
    """Parse `22:00-06:00` into the `hours` of a request; None for `always`."""
    if text == "always":
        return None
    since, separator, until = text.partition("-")
    if not separator:
        raise typer.BadParameter(f"{text!r} is not HH:MM-HH:MM", param_hint="--hours")
    return {"since": since.strip(), "until": until.strip()} | ({"timezone": timezone} if timezone else {})
