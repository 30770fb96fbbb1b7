"""What is written into the forms for a batch and for a schedule: read as a request to the API, and shown again.

A form comes back with its faults beside the fields. Its fields are named after what they ask, those of a model's
parameters `model.parameter`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from api.errors import invalid, read_json
from api.web.forms import Blank, blanks
from shared.catalog import MENU, ModelSpec
from shared.errors import FieldError, InvalidRequest, SceneworksError
from shared.values import labels_of
from shared.values.archive.batches import USUAL_CAP, Work
from shared.values.archive.timetable import Timetable

Given = Mapping[str, Sequence[str]]
"""Name of a field -> what was given for it, several where several may be chosen."""
Asked = TypeVar("Asked", bound=BaseModel)

USUAL: dict[str, list[str]] = {
    "kind": ["reprocess"], "only": ["missing_or_outdated"], "priority": ["low"], "cap": [str(USUAL_CAP)],
    "timezone": ["UTC"], "zone": ["UTC"], "catch_up": ["once"],
}  # fmt: skip
FIELDS = (
    (r"/name", "name"), (r"/selection/(sources|videos|labels|only|code).*", r"\1"), (r"/labels.*", "job_labels"),
    (r"/hours/(since|until)", r"\1"), (r"/hours.*", "zone"), (r"/(cron|every_s|timezone|catch_up|cap|priority)", r"\1"),
    (r"/analyses(/\d+/model)?", "models"),
)  # fmt: skip
"""Places in a request, and the field that each is asked for in."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and with which field; "" where it is none."""

    field: str
    detail: str


# What a form shows ----------------------------------------------------------------------------------------------------


def menu(given: Given) -> list[tuple[ModelSpec, list[Blank]]]:
    """Each model with the fields of its parameters: as given where the model is chosen, else the defaults."""
    chosen = given.get("model", ())
    return [
        (spec, [_filled(one, given) if spec.name in chosen else one for one in blanks(spec)]) for spec in MENU.values()
    ]


def _filled(blank: Blank, given: Given) -> Blank:
    if blank.kind == "boolean":
        return replace(blank, value="true" if blank.id in given else "false")
    return replace(blank, value=(given.get(blank.id) or [blank.value])[0])


def of_work(work: Work) -> dict[str, list[str]]:
    """A form filled with what is asked for already."""
    said = work.selection
    hours = work.hours.record() if work.hours else {}
    given = USUAL | {
        "model": [model for model, _ in work.analyses],
        "sources": list(said.sources),
        "videos": ["\n".join(said.videos)],
        "labels": [_lines(said.labels)],
        "only": [said.only],
        "code": [said.code or ""],
        "priority": [work.priority],
        "cap": ["" if work.cap is None else str(work.cap)],
        "since": [hours.get("since", "")],
        "until": [hours.get("until", "")],
        "zone": [hours.get("timezone", "UTC")],
        "job_labels": [_lines(work.labels)],
    }
    for model, params in work.analyses:
        given |= _params(MENU[model], params) if model in MENU else {}
    return given


def of_timetable(timetable: Timetable, name: str, catch_up: str) -> dict[str, list[str]]:
    """The fields that a schedule has beside its work."""
    every = "" if timetable.every_s is None else str(timetable.every_s)
    told = {"name": name, "cron": timetable.cron or "", "every_s": every, "timezone": timetable.timezone}
    return {field: [value] for field, value in (told | {"catch_up": catch_up}).items()}


def _params(spec: ModelSpec, params: Mapping[str, Any]) -> dict[str, list[str]]:
    """The parameters of a model as text of their fields."""
    found: dict[str, list[str]] = {}
    for blank in blanks(spec):
        value = params.get(blank.name)
        if blank.kind == "boolean":
            found |= {blank.id: ["on"]} if value else {}
        elif blank.kind == "lines":
            found[blank.id] = ["\n".join(value or ())]
        elif value is not None:
            found[blank.id] = [json.dumps(value) if blank.kind == "json" else str(value)]
    return found


def _lines(labels: Mapping[str, str]) -> str:
    return "\n".join(f"{name}:{value}" for name, value in labels.items())


# What it asks for -----------------------------------------------------------------------------------------------------


def batch(given: Given) -> dict[str, Any]:
    """The body of a request for a batch; InvalidRequest."""
    return _work(given) | {"name": _first(given, "name") or None}


def schedule(given: Given) -> dict[str, Any]:
    """The body of a request for a schedule; InvalidRequest."""
    return _work(given) | {
        "name": _first(given, "name"),
        "cron": _first(given, "cron") or None,
        "every_s": _number(_first(given, "every_s"), int),
        "timezone": _first(given, "timezone"),
        "catch_up": _first(given, "catch_up"),
    }


def checked(kind: type[Asked], body: Mapping[str, Any]) -> Asked:
    """The body as the API reads it; InvalidRequest."""
    text = json.dumps(body).encode()
    read_json(text)
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise invalid(error) from None


def faults(error: SceneworksError, given: Given) -> list[Fault]:
    """Each fault with the field that it means."""
    models = [name for name in MENU if name in given.get("model", ())]
    found = [Fault(_field(one.pointer, models), one.detail) for one in error.errors]
    return found or [Fault("", error.detail)]


def _field(pointer: str, models: Sequence[str]) -> str:
    if param := re.fullmatch(r"/analyses/(\d+)/params/([^/]+).*", pointer):
        at = int(param[1])
        return f"{models[at]}.{param[2]}" if at < len(models) else "models"
    return next((re.sub(place, field, pointer) for place, field in FIELDS if re.fullmatch(place, pointer)), "")


def _work(given: Given) -> dict[str, Any]:
    analyses = [{"model": spec.name, "params": _read(spec, given)} for spec in MENU.values()
                if spec.name in given.get("model", ())]  # fmt: skip
    hours = {name: _first(given, field) for name, field in (("since",) * 2, ("until",) * 2, ("timezone", "zone"))}
    return {
        "analyses": analyses,
        "selection": {
            "sources": list(given.get("sources", ())),
            "videos": re.split(r"[\s,]+", _first(given, "videos")) if _first(given, "videos") else [],
            "labels": _labels(given, "labels", "/selection/labels"),
            "only": _first(given, "only"),
            "code": _first(given, "code") or None,
        },
        "priority": _first(given, "priority"),
        "cap": _number(_first(given, "cap"), int),
        "hours": hours if hours["since"] or hours["until"] else None,
        "labels": _labels(given, "job_labels", "/labels"),
    }


def _read(spec: ModelSpec, given: Given) -> dict[str, Any]:
    """The parameters of a model that are given; the API knows the defaults of the rest."""
    found: dict[str, Any] = {}
    for blank in blanks(spec):
        said = _first(given, blank.id)
        if blank.kind == "boolean":
            found[blank.name] = blank.id in given
        elif said:
            found[blank.name] = _value(blank.kind, said)
    return found


def _value(kind: str, said: str) -> Any:
    match kind:
        case "integer":
            return _number(said, int)
        case "number":
            return _number(said, float)
        case "lines":
            return [line.strip() for line in said.splitlines() if line.strip()]
        case "json":
            try:
                return read_json(said.encode())
            except InvalidRequest:
                return said  # which is then said not to be what the parameter wants
        case _:
            return said


def _number(said: str, kind: type[int] | type[float]) -> int | float | str | None:
    """A number; the text where it is none, for the API to say so."""
    try:
        return kind(said) if said else None
    except ValueError:
        return said


def _labels(given: Given, field: str, pointer: str) -> dict[str, str]:
    lines: Iterable[str] = (line.strip() for line in _first(given, field).splitlines())
    try:
        return labels_of(line for line in lines if line)
    except ValueError:
        detail = "A label is written name:value, one a line."
        raise InvalidRequest(detail, errors=(FieldError(pointer, "bad_label", detail),)) from None


def _first(given: Given, field: str) -> str:
    return (given.get(field) or [""])[0].strip()
