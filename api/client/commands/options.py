"""Options that several commands share: which films, what is done with them, and how many at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.client.terminal import exit_on_error, read_analyses

if TYPE_CHECKING:
    from api.client.http import JsonObject
    from api.client.sse import BatchClient


class OnlyFilter(StrEnum):
    """Which of the films are meant."""

    ALL = "all"
    MISSING = "missing"
    OUTDATED = "outdated"
    MISSING_OR_OUTDATED = "missing_or_outdated"
    FAILED = "failed"


class JobPriority(StrEnum):
    """Of the jobs."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


LabelOption = Annotated[
    list[str] | None, typer.Option("--label", metavar="NAME:VALUE", help="A label; may be given again.")
]
SourceOption = Annotated[
    list[str] | None, typer.Option("--source", help="Films of this source, by name or id; may be given again.")
]
VideoOption = Annotated[list[str] | None, typer.Option("--video", help="This film, by id; may be given again.")]
LabelFilterOption = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME:VALUE", help="Films with this label; may be given again."),
]
OnlyOption = Annotated[
    OnlyFilter | None,
    typer.Option(help="Films that lack the model, have it by other weights or parameters than now, or failed."),
]
CodeOption = Annotated[str | None, typer.Option(help="With --only failed: with this error code.")]
PriorityOption = Annotated[JobPriority | None, typer.Option(help="Of the jobs.", show_default="low")]
CapOption = Annotated[int | None, typer.Option(min=0, help="Jobs unfinished at once; 0: no limit.", show_default="32")]
HoursOption = Annotated[
    str | None, typer.Option(metavar="HH:MM-HH:MM", help="Jobs start in these hours only; `always` for all.")
]
ZoneOption = Annotated[str | None, typer.Option(help="Time zone, such as Europe/Berlin.", show_default="UTC")]
JobLabelOption = Annotated[
    list[str] | None,
    typer.Option("--job-label", metavar="NAME:VALUE", help="Label of the jobs; may be given again."),
]


@contextmanager
def connect_batch_client(context: typer.Context) -> Iterator[BatchClient]:
    """The service; what goes wrong meanwhile is said."""
    from api.client.sse import BatchClient

    with exit_on_error(), BatchClient(context.obj.url, context.obj.key) as client:
        yield client


def parse_labels(pairs: list[str] | None, option: str = "--label") -> dict[str, str]:
    """`show:x` -> {"show": "x"}; a usage error for a pair without a colon."""
    labels = {}
    for pair in pairs or []:
        name, separator, value = pair.partition(":")
        if not separator or not name:
            raise typer.BadParameter(f"{pair!r} is not NAME:VALUE", param_hint=option)
        labels[name] = value
    return labels


def build_selection(
    client: BatchClient,
    source: list[str] | None,
    video: list[str] | None,
    label: list[str] | None,
    only: OnlyFilter | None,
    code: str | None,
) -> JsonObject:
    """Which films, as the API takes it: what is not said is left out."""
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
    """What is done with them, as the API takes it: what is not said is left out."""
    body: dict[str, Any] = {}
    if model:
        body["analyses"] = read_analyses(model, param)
    elif param:
        raise typer.BadParameter("Parameters go with --model.", param_hint="--param")
    if selection:
        body["selection"] = selection
    if priority:
        body["priority"] = priority.value
    if cap is not None:
        body["cap"] = cap or None
    if hours is not None:
        body["hours"] = parse_hours(hours, timezone)
    if job_label:
        body["labels"] = parse_labels(job_label, "--job-label")
    return body


def parse_hours(text: str, timezone: str | None) -> JsonObject | None:
    """`22:00-06:00` as the API takes it; None for `always`."""
    if text == "always":
        return None
    since, separator, until = text.partition("-")
    if not separator:
        raise typer.BadParameter(f"{text!r} is not HH:MM-HH:MM", param_hint="--hours")
    return {"since": since.strip(), "until": until.strip()} | ({"timezone": timezone} if timezone else {})
