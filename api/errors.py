"""The door: what is refused, and how a refusal looks.

Every error leaves as RFC 9457 `application/problem+json` with a code of the closed list. JSON bodies are read
strictly: 1 MiB, UTF-8, no duplicate keys, no NaN, no deep nesting, no characters that Postgres cannot hold. Page tokens
are opaque.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from apiflask import APIFlask
from apiflask.exceptions import HTTPError
from flask import Request, Response, g, request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError as PoolTimeoutError
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from shared.errors import FieldError, Internal, InvalidRequest, NotFound, SceneworksError, Unauthorized, leaves
from shared.log import logger

log = logger(__name__)

KEY_COOKIE = "sceneworks_key"
"""Where the page keeps an API key."""
MAX_JSON_BYTES = 1 << 20
MAX_JSON_DEPTH = 32
RETRY_AFTER_S = 5
T = TypeVar("T")
View = TypeVar("View", bound=Callable[..., Any])


class ProblemField(BaseModel):
    """One fault inside a request."""

    pointer: str = Field(description="JSON pointer into the body; `/query/NAME` and `/headers/NAME` for the rest.")
    code: str
    detail: str


class Problem(BaseModel):
    """RFC 9457 problem document."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str = Field(json_schema_extra={"enum": [*sorted(leaves())]})
    detail: str
    instance: str
    request_id: str
    retryable: bool = Field(description="Whether the same request may succeed later.")
    errors: list[ProblemField] = Field(default=[], description="The faults, where one has a place.")


def problems(*errors: type[SceneworksError], also: dict[int | str, Any] | None = None) -> dict[int | str, Any]:
    """OpenAPI responses for the errors that a route can answer with, and for other answers of it."""
    found: dict[int | str, Any] = dict(also or {})
    for error in errors:
        entry = found.setdefault(error.status, {"description": "", "content": PROBLEM_CONTENT})
        entry["description"] += f"{', ' if entry['description'] else ''}`{error.code}`"
    return found


PROBLEM_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def problem(
    error: SceneworksError, *, status: int | None = None, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """The error as a response; `status` where HTTP has a finer one than the code, `more` for extra members."""
    document = error.problem() | {"instance": request.path, "request_id": g.get("request_id", "")} | more
    if status is not None:
        document["status"] = status
    response = Response(json.dumps(document), status=document["status"], mimetype="application/problem+json")
    response.headers.extend(headers or {})
    if document["retryable"] and "Retry-After" not in response.headers:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = 'Bearer realm="sceneworks"'
    return response


def handle_errors(app: APIFlask) -> None:
    """Register one handler for each family of errors, so that nothing leaves the app in another form."""
    app.register_error_handler(SceneworksError, problem)
    app.error_processor(_http)
    app.register_error_handler(ValidationError, _unexpected)
    for away in (OperationalError, InterfaceError, PoolTimeoutError):
        app.register_error_handler(away, _database)
    app.register_error_handler(Exception, _unexpected)


def _http(error: HTTPError) -> Response:
    """An error of Flask, Werkzeug or APIFlask, with its status and headers kept."""
    if isinstance(error.__cause__, ValidationError):
        location = next(iter(error.detail), "json")
        return problem(invalid(error.__cause__, "" if location == "json" else f"/{location}"))
    headers = {name: str(value) for name, value in dict(error.headers or {}).items()}
    return problem(_same_as(error.status_code), status=error.status_code, headers=headers)


def _same_as(status: int) -> SceneworksError:
    texts = {
        405: "This address does not take that method.",
        413: f"The body is larger than {MAX_JSON_BYTES} bytes.",
        416: "The file has no such range of bytes.",
    }
    if status == NotFound.status:
        return NotFound("There is nothing at this address.")
    if status >= Internal.status:
        return Internal()
    return InvalidRequest(texts.get(status, "The request is not valid HTTP for this API."))


def _database(error: Exception) -> Response:
    """Postgres is away, or too slow: the same request may work in a moment, and an Idempotency-Key makes it safe."""
    log.warning("database.unreachable", reason=str(error).partition("\n")[0])
    return problem(Internal("The database cannot be reached at the moment."), status=503, retryable=True)


def _unexpected(error: Exception) -> Response:
    log.error("request.failed", path=request.path, exc_info=error)
    return problem(Internal("Something went wrong on our side; the log has it under the request id."))


def invalid(error: ValidationError, prefix: str = "") -> InvalidRequest:
    """What pydantic found, fault by fault, as JSON pointers."""
    faults = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        where = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in fault["loc"])
        where = where.replace("_", "-").title() if prefix == "/headers" else where
        code = "unknown_field" if fault["type"] == "extra_forbidden" else fault["type"]
        faults.append(FieldError(prefix + where, code, fault["msg"]))
    return InvalidRequest("The request is not valid; see `errors`.", errors=tuple(faults))


def bad_query(name: str, code: str, detail: str) -> InvalidRequest:
    """One query parameter is wrong."""
    return InvalidRequest(detail, errors=(FieldError(f"/query/{name}", code, detail),))


class Body(BaseModel):
    """A JSON body: closed, and without conversions between types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Query(BaseModel):
    """Query parameters: closed; numbers are read from text."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Record(BaseModel):
    """A JSON answer: closed, so that the OpenAPI document cannot fall behind."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StrictRequest(Request):
    """A request whose JSON is read strictly, whoever asks for it."""

    def get_json(self, *_: Any, **__: Any) -> Any:
        """The body; InvalidRequest when it is not the JSON we take."""
        if self.mimetype != "application/json":
            raise InvalidRequest("Content-Type must be application/json.")
        return read_json(self._whole_body())

    def _whole_body(self) -> bytes:
        self.max_content_length = MAX_JSON_BYTES + 1  # a body without a length is cut there without a word
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
    """Parse JSON strictly: InvalidRequest for everything that parsers disagree about or the ledger cannot hold."""
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
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
    for text in _strings(value):
        check_text(text)
    return value


def check_text(text: str) -> None:
    """InvalidRequest for characters that are no text: NUL and halves of surrogate pairs, which Postgres refuses."""
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise InvalidRequest("Text must not hold NUL characters or halves of surrogate pairs.")


def _strings(value: Any) -> Iterator[str]:
    """Every string in it, names included; without recursion."""
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


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def page(
    kind: str, found: Sequence[T], limit: int, cursor: Callable[[T], tuple[Any, ...]]
) -> tuple[list[T], str | None, dict[str, str]]:
    """Of `limit + 1` items read: those of this page, the token of the next, and the `Link` header that says so."""
    items = list(found[:limit])
    if len(found) <= limit:
        return items, None, {}
    token = write_token(kind, cursor(items[-1]))
    query = [(name, value) for name, value in request.args.items(multi=True) if name != "page_token"]
    return items, token, {"Link": f'<{request.path}?{urlencode([*query, ("page_token", token)])}>; rel="next"'}


def write_token(kind: str, cursor: tuple[Any, ...]) -> str:
    """An opaque token for the place after which a list goes on."""
    plain = [part.isoformat() if isinstance(part, datetime) else part for part in cursor]
    return base64.urlsafe_b64encode(json.dumps([kind, *plain]).encode()).decode().rstrip("=")


def read_token(kind: str, token: str | None, shape: tuple[type, ...]) -> Any:
    """Inverse of `write_token`; InvalidRequest unless it is a token of such a list."""
    if token is None:
        return None
    try:
        said, *parts = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
        cursor = tuple(_part(part, wanted) for part, wanted in zip(parts, shape, strict=True))
    except (ValueError, TypeError, RecursionError):
        raise bad_query("page_token", "bad_token", "This page_token was not made by this list.") from None
    if said != kind:
        raise bad_query("page_token", "bad_token", "This page_token belongs to another list.")
    return cursor


def _part(part: Any, wanted: type) -> Any:
    """One part of a cursor, of a type and size that the ledger can compare with; ValueError."""
    if wanted is datetime:
        moment = datetime.fromisoformat(part)
        if moment.tzinfo is None:
            raise ValueError(part)
        return moment
    if isinstance(part, bool) or not isinstance(part, wanted):
        raise TypeError(part)
    if (isinstance(part, str) and not part.isprintable()) or (isinstance(part, int) and abs(part) >= 2**31):
        raise ValueError(part)
    return part


def open_to_all(view: View) -> View:
    """Mark a view that answers without an API key."""
    view.open_to_all = True  # type: ignore[attr-defined]
    return view
