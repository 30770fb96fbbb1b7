"""The form for a job: one field for each parameter of each model, from its JSON Schema."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from shared.catalog import ModelSpec


@dataclass(frozen=True, slots=True)
class Blank:
    """One field of the form, from the JSON Schema of a parameter.

    Args:
        name: of the parameter.
        id: of the field, `model.parameter`.
        kind: `choice`, `number`, `integer`, `boolean`, `string`, `lines` (a list of strings) or `json` (the rest).
        value: the default as the field shows it; empty where there is none.
        limits: attributes `min`, `max`, `step`, `maxlength` of the field.
        needed: whether there is no default: what only the caller can know.
    """

    name: str
    id: str
    kind: str
    value: str
    hint: str
    options: tuple[str, ...]
    limits: dict[str, Any]
    needed: bool


def blanks(spec: ModelSpec) -> list[Blank]:
    """The fields of a form for the parameters of a model: a new model brings its own, and the page stays as it is."""
    schema = spec.params.model_json_schema()
    needed = schema.get("required", [])
    return [
        _blank(spec.name, name, _plain(field, schema.get("$defs", {})), name in needed)
        for name, field in schema.get("properties", {}).items()
    ]


def _plain(field: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """The schema of one parameter without references, and without the null of an optional one."""
    for choice in field.get("anyOf", []):
        if choice != {"type": "null"}:
            return _plain(choice | {name: value for name, value in field.items() if name != "anyOf"}, defs)
    if "$ref" in field:
        target: dict[str, Any] = defs[field["$ref"].rpartition("/")[2]]
        return target | {name: value for name, value in field.items() if name != "$ref"}
    return field


def _blank(model: str, name: str, field: dict[str, Any], needed: bool) -> Blank:
    kind, default = _kind(field), field.get("default")
    limits = {
        "min": field.get("minimum", field.get("exclusiveMinimum")),
        "max": field.get("maximum", field.get("exclusiveMaximum")),
        "step": {"integer": 1, "number": "any"}.get(kind),
        "maxlength": field.get("maxLength"),
    }
    return Blank(
        name=name,
        id=f"{model}.{name}",
        kind=kind,
        value=_shown(kind, default),
        hint=field.get("description", ""),
        options=tuple(str(option) for option in _options(field)),
        limits={attribute: limit for attribute, limit in limits.items() if limit is not None},
        needed=needed,
    )


def _options(field: dict[str, Any]) -> list[Any]:
    """The values to choose from; one alone is a `const`."""
    return [field["const"]] if "const" in field else list(field.get("enum", []))


def _kind(field: dict[str, Any]) -> str:
    options = _options(field)
    if options and all(isinstance(option, str) for option in options):
        return "choice"
    if field.get("type") == "array" and field.get("items", {}).get("type") == "string":
        return "lines"
    kind = field.get("type")
    return kind if kind in {"number", "integer", "boolean", "string"} else "json"


def _shown(kind: str, default: Any) -> str:
    """A default as the text of its field."""
    if default is None:
        return ""
    if kind == "lines":
        return "\n".join(default)
    return json.dumps(default) if kind in {"boolean", "json"} else str(default)
