"""Convert the forms for batches and schedules to request bodies of the API, and requests back to form values.

A form is shown again with its faults beside the fields. Fields of a model's parameters are named `model.parameter`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from api.http.problems import to_invalid_request
from api.http.strict_json import read_json
from api.web.pages.forms import FormField, build_form_fields
from shared.catalog import CATALOG, ModelSpec
from shared.errors import InvalidRequest, SceneworksError
from shared.values import parse_labels
from shared.values.batches import DEFAULT_CAP, Workload
from shared.values.timetable import Timetable

FormValues = Mapping[str, Sequence[str]]
"""Name of a field -> what was given for it, several where several may be chosen."""
BodyT = TypeVar("BodyT", bound=BaseModel)

DEFAULT_VALUES: dict[str, list[str]] = {
    "kind": ["reprocess"], "only": ["missing_or_outdated"], "priority": ["low"], "cap": [str(DEFAULT_CAP)],
    "timezone": ["UTC"], "zone": ["UTC"], "catch_up": ["once"],
}  # fmt: skip
FIELD_PATTERNS = (
    (r"/name", "name"), (r"/selection/(sources|videos|labels|only|code).*", r"\1"), (r"/labels.*", "job_labels"),
    (r"/hours/(since|until)", r"\1"), (r"/hours.*", "zone"), (r"/(cron|every_s|timezone|catch_up|cap|priority)", r"\1"),
    (r"/analyses(/\d+/model)?", "models"),
)  # fmt: skip
"""JSON pointers of a request, and the form field of each."""


@dataclass(frozen=True, slots=True)
class FormFault:
    """What is wrong, and with which field; "" where it is none."""

    field: str
    detail: str


# Form values -------------------------------------------------------------------------------------------------------


def list_model_fields(values: FormValues) -> list[tuple[ModelSpec, list[FormField]]]:
    """Each model with the fields of its parameters: as given where the model is chosen, else the defaults."""
    chosen_models = values.get("model", ())
    return [
        (
            spec,
            [_fill_field(field, values) if spec.name in chosen_models else field for field in build_form_fields(spec)],
        )
        for spec in CATALOG.values()
    ]


def _fill_field(field: FormField, values: FormValues) -> FormField:
    if field.kind == "boolean":
        return replace(field, value="true" if field.id in values else "false")
    return replace(field, value=(values.get(field.id) or [field.value])[0])


def fill_from_work(work: Workload) -> dict[str, list[str]]:
    """Build the form values of existing work."""
    selection = work.selection
    hours = work.hours.to_dict() if work.hours else {}
    values = DEFAULT_VALUES | {
        "model": [model for model, _ in work.analyses],
        "sources": list(selection.sources),
        "videos": ["\n".join(selection.videos)],
        "labels": [_format_labels(selection.labels)],
        "only": [selection.only],
        "code": [selection.code or ""],
        "priority": [work.priority],
        "cap": ["" if work.cap is None else str(work.cap)],
        "since": [hours.get("since", "")],
        "until": [hours.get("until", "")],
        "zone": [hours.get("timezone", "UTC")],
        "job_labels": [_format_labels(work.labels)],
    }
    for model, params in work.analyses:
        values |= _format_params(CATALOG[model], params) if model in CATALOG else {}
    return values


def fill_from_timetable(timetable: Timetable, name: str, catch_up: str) -> dict[str, list[str]]:
    """The fields that a schedule has beside its work."""
    every = "" if timetable.every_s is None else str(timetable.every_s)
    fields = {"name": name, "cron": timetable.cron or "", "every_s": every, "timezone": timetable.timezone}
    return {field: [value] for field, value in (fields | {"catch_up": catch_up}).items()}


def _format_params(spec: ModelSpec, params: Mapping[str, Any]) -> dict[str, list[str]]:
    """The parameters of a model as text of their fields."""
    values: dict[str, list[str]] = {}
    for field in build_form_fields(spec):
        value = params.get(field.name)
        if field.kind == "boolean":
            values |= {field.id: ["on"]} if value else {}
        elif field.kind == "lines":
            values[field.id] = ["\n".join(value or ())]
        elif value is not None:
            values[field.id] = [json.dumps(value) if field.kind == "json" else str(value)]
    return values


def _format_labels(labels: Mapping[str, str]) -> str:
    return "\n".join(f"{name}:{value}" for name, value in labels.items())


# Request bodies ------------------------------------------------------------------------------------------------------


def parse_batch(values: FormValues) -> dict[str, Any]:
    """The body of a request for a batch; InvalidRequest."""
    return _parse_work(values) | {"name": _first_value(values, "name") or None}


def parse_schedule(values: FormValues) -> dict[str, Any]:
    """The body of a request for a schedule; InvalidRequest."""
    return _parse_work(values) | {
        "name": _first_value(values, "name"),
        "cron": _first_value(values, "cron") or None,
        "every_s": _parse_number(_first_value(values, "every_s"), int),
        "timezone": _first_value(values, "timezone"),
        "catch_up": _first_value(values, "catch_up"),
    }


def validate_body(body_type: type[BodyT], body: Mapping[str, Any]) -> BodyT:
    """The body as the API reads it; InvalidRequest."""
    text = json.dumps(body).encode()
    read_json(text)
    try:
        return body_type.model_validate_json(text)
    except ValidationError as error:
        raise to_invalid_request(error) from None


def list_faults(error: SceneworksError, values: FormValues) -> list[FormFault]:
    """Each fault with the field that it means."""
    models = [name for name in CATALOG if name in values.get("model", ())]
    form_faults = [
        FormFault(_find_field(field_error.pointer, models), field_error.detail) for field_error in error.errors
    ]
    return form_faults or [FormFault("", error.detail)]


def _find_field(pointer: str, models: Sequence[str]) -> str:
    if param := re.fullmatch(r"/analyses/(\d+)/params/([^/]+).*", pointer):
        index = int(param[1])
        return f"{models[index]}.{param[2]}" if index < len(models) else "models"
    return next((re.sub(place, field, pointer) for place, field in FIELD_PATTERNS if re.fullmatch(place, pointer)), "")


def _parse_work(values: FormValues) -> dict[str, Any]:
    analyses = [{"model": spec.name, "params": _parse_params(spec, values)} for spec in CATALOG.values()
                if spec.name in values.get("model", ())]  # fmt: skip
    hours = {
        name: _first_value(values, field) for name, field in (("since",) * 2, ("until",) * 2, ("timezone", "zone"))
    }
    return {
        "analyses": analyses,
        "selection": {
            "sources": list(values.get("sources", ())),
            "videos": re.split(r"[\s,]+", _first_value(values, "videos")) if _first_value(values, "videos") else [],
            "labels": _parse_labels(values, "labels", "/selection/labels"),
            "only": _first_value(values, "only"),
            "code": _first_value(values, "code") or None,
        },
        "priority": _first_value(values, "priority"),
        "cap": _parse_number(_first_value(values, "cap"), int),
        "hours": hours if hours["since"] or hours["until"] else None,
        "labels": _parse_labels(values, "job_labels", "/labels"),
    }


def _parse_params(spec: ModelSpec, values: FormValues) -> dict[str, Any]:
    """The parameters of a model that are given; the API knows the defaults of the rest."""
    params: dict[str, Any] = {}
    for field in build_form_fields(spec):
        text = _first_value(values, field.id)
        if field.kind == "boolean":
            params[field.name] = field.id in values
        elif text:
            params[field.name] = _parse_value(field.kind, text)
    return params


def _parse_value(kind: str, text: str) -> Any:
    match kind:
        case "integer":
            return _parse_number(text, int)
        case "number":
            return _parse_number(text, float)
        case "lines":
            return [line.strip() for line in text.splitlines() if line.strip()]
        case "json":
            try:
                return read_json(text.encode())
            except InvalidRequest:
                return text  # the check of the parameter then refuses it by name
        case _:
            return text


def _parse_number(text: str, number_type: type[int] | type[float]) -> int | float | str | None:
    """A number; the text where it is none, for the API to say so."""
    try:
        return number_type(text) if text else None
    except ValueError:
        return text


def _parse_labels(values: FormValues, field: str, pointer: str) -> dict[str, str]:
    lines: Iterable[str] = (line.strip() for line in _first_value(values, field).splitlines())
    try:
        return parse_labels(line for line in lines if line)
    except ValueError:
        raise InvalidRequest.at(pointer, "bad_label", "A label is written name:value, one a line.") from None


def _first_value(values: FormValues, field: str) -> str:
    return (values.get(field) or [""])[0].strip()
