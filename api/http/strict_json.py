"""Request bodies as strict JSON: bounded in size and depth, no duplicate keys, finite numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from flask import Request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from shared.errors import InvalidRequest

MAX_JSON_BYTES = 1 << 20
MAX_JSON_DEPTH = 32


class StrictRequest(Request):
    """A request whose JSON is always read strictly."""

    def get_json(self, *_: Any, **__: Any) -> Any:
        """Read the body as strict JSON; InvalidRequest."""
        if self.mimetype != "application/json":
            raise InvalidRequest("Content-Type must be application/json.")
        return read_json(self._read_whole_body())

    def _read_whole_body(self) -> bytes:
        # A body without a length is cut at the limit without an error: one byte more shows that there was more.
        self.max_content_length = MAX_JSON_BYTES + 1
        try:
            data = self.get_data()
        except (ClientDisconnected, OSError):
            raise InvalidRequest("The body ended before it was complete.") from None
        if len(data) > MAX_JSON_BYTES:
            raise RequestEntityTooLarge
        if self.content_length is not None and len(data) != self.content_length:
            raise InvalidRequest("The body ended before it was complete.")
        return data


def read_json(data: bytes) -> Any:
    """Parse JSON strictly; InvalidRequest for what parsers disagree about and what Postgres cannot store."""
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_reject_duplicate_names,
            parse_constant=_reject_constant,
            parse_float=_parse_finite,
        )
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not UTF-8.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deep.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest(f"The body is not JSON: {error.msg} ({where}).") from None
    except ValueError as error:
        raise InvalidRequest(f"The body is not JSON: {str(error)[:200]}.") from None
    for text in _iter_strings(value):
        check_text(text)
    return value


def check_text(text: str) -> None:
    """InvalidRequest for characters that are no text: NUL and halves of surrogate pairs, which Postgres refuses."""
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise InvalidRequest("Text must not hold NUL characters or halves of surrogate pairs.")


def _iter_strings(value: Any) -> Iterator[str]:
    """Iterate over every string in a JSON value, member names included."""
    # A stack of our own: nesting is limited here, and recursion would be limited by the interpreter instead.
    stack = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_JSON_DEPTH:
            raise InvalidRequest("The body is nested too deep.")
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            yield from item
            stack += [(child, depth + 1) for child in item.values()]
        elif isinstance(item, list):
            stack += [(child, depth + 1) for child in item]


def _reject_duplicate_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return members


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number
