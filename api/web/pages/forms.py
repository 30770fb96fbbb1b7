"""The form for a job: one field for each parameter of each model, from its JSON Schema."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from shared.catalog import ModelSpec


@dataclass(frozen=True, slots=True)
class FormField:
    """One field of the form, from the JSON Schema of a parameter.

    Args:
        name: of the parameter.
        id: of the field, `model.parameter`.
        kind: `choice`, `number`, `integer`, `boolean`, `string`, `lines` (a list of strings) or `json` (the rest).
        value: the default as the field shows it; empty where there is none.
        limits: attributes `min`, `max`, `step`, `maxlength` of the field.
        required: whether there is no default: what only the caller can know.
    """

    name: str
    id: str
    kind: str
    value: str
    hint: str
    options: tuple[str, ...]
    limits: dict[str, Any]
    required: bool


def build_form_fields(spec: ModelSpec) -> list[FormField]:
    """The fields of a form for the parameters of a model: a new model brings its own, and the page stays as it is."""
    schema = spec.params.model_json_schema()
    required = schema.get("required", [])
    return [
        _build_form_field(spec.name, name, _resolve_schema(field, schema.get("$defs", {})), name in required)
        for name, field in schema.get("properties", {}).items()
    ]


def _resolve_schema(field: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """The schema of one parameter without references, and without the null of an optional one."""
    for choice in field.get("anyOf", []):
        if choice != {"type": "null"}:
            return _resolve_schema(choice | {name: value for name, value in field.items() if name != "anyOf"}, defs)
    if "$ref" in field:
        target: dict[str, Any] = defs[field["$ref"].rpartition("/")[2]]
        return target | {name: value for name, value in field.items() if name != "$ref"}
    return field


def _build_form_field(model: str, name: str, field: dict[str, Any], required: bool) -> FormField:
    kind, default = _infer_kind(field), field.get("default")
    limits = {
        "min": field.get("minimum", field.get("exclusiveMinimum")),
        "max": field.get("maximum", field.get("exclusiveMaximum")),
        "step": {"integer": 1, "number": "any"}.get(kind),
        "maxlength": field.get("maxLength"),
    }
    return FormField(
        name=name,
        id=f"{model}.{name}",
        kind=kind,
        value=_format_default(kind, default),
        hint=field.get("description", ""),
        options=tuple(str(option) for option in _list_options(field)),
        limits={attribute: limit for attribute, limit in limits.items() if limit is not None},
        required=required,
    )


def _list_options(field: dict[str, Any]) -> list[Any]:
    """The values to choose from; one alone is a `const`."""
    return [field["const"]] if "const" in field else list(field.get("enum", []))


def _infer_kind(field: dict[str, Any]) -> str:
    options = _list_options(field)
    if options and all(isinstance(option, str) for option in options):
        return "choice"
    if field.get("type") == "array" and field.get("items", {}).get("type") == "string":
        return "lines"
    kind = field.get("type")
    return kind if kind in {"number", "integer", "boolean", "string"} else "json"


def _format_default(kind: str, default: Any) -> str:
    """A default as the text of its field."""
    if default is None:
        return ""
    if kind == "lines":
        return "\n".join(default)
    return json.dumps(default) if kind in {"boolean", "json"} else str(default)
