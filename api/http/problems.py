"""Problem documents: every error is answered as RFC 9457 `application/problem+json` with a code of the closed list."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from apiflask import APIFlask
from apiflask.exceptions import HTTPError
from flask import Response, g, request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError as PoolTimeoutError

from api.http.strict_json import MAX_JSON_BYTES
from shared.errors import FieldError, Internal, InvalidRequest, NotFound, SceneworksError, Unauthorized, errors_by_code
from shared.log import get_logger

log = get_logger(__name__)

KEY_COOKIE = "sceneworks_key"
"""Cookie in which the pages keep an API key."""
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
    code: str = Field(json_schema_extra={"enum": [*sorted(errors_by_code())]})
    detail: str
    instance: str
    request_id: str
    retryable: bool = Field(description="Whether the same request may succeed later.")
    errors: list[ProblemField] = Field(default=[], description="The faults, where one has a place.")


def document_problems(
    *errors: type[SceneworksError], extra: dict[int | str, Any] | None = None
) -> dict[int | str, Any]:
    """Build the OpenAPI responses for the errors of a route, and for other answers of it."""
    responses: dict[int | str, Any] = dict(extra or {})
    for error in errors:
        entry = responses.setdefault(error.status, {"description": "", "content": PROBLEM_CONTENT})
        entry["description"] += f"{', ' if entry['description'] else ''}`{error.code}`"
    return responses


PROBLEM_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def build_problem_response(
    error: SceneworksError, *, status: int | None = None, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Build the response for an error.

    Args:
        error: what went wrong.
        status: where HTTP has a finer status than the class of the error.
        headers: of the response.
        more: further members of the document.
    """
    document = error.to_problem() | {"instance": request.path, "request_id": g.get("request_id", "")} | more
    if status is not None:
        document["status"] = status
    response = Response(json.dumps(document), status=document["status"], mimetype="application/problem+json")
    response.headers.extend(headers or {})
    if document["retryable"] and "Retry-After" not in response.headers:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = 'Bearer realm="sceneworks"'
    return response


def register_error_handlers(app: APIFlask) -> None:
    """Register one handler for each family of errors, so that nothing leaves the app in another form."""
    app.register_error_handler(SceneworksError, build_problem_response)
    app.error_processor(_handle_http_error)
    app.register_error_handler(ValidationError, _handle_unexpected_error)
    for error_class in (OperationalError, InterfaceError, PoolTimeoutError):
        app.register_error_handler(error_class, _handle_database_error)
    app.register_error_handler(Exception, _handle_unexpected_error)


def _handle_http_error(error: HTTPError) -> Response:
    """Answer an error of Flask, Werkzeug or APIFlask with its own status and headers."""
    if isinstance(error.__cause__, ValidationError):
        location = next(iter(error.detail), "json")
        return build_problem_response(to_invalid_request(error.__cause__, "" if location == "json" else f"/{location}"))
    headers = {name: str(value) for name, value in dict(error.headers or {}).items()}
    return build_problem_response(_error_for_status(error.status_code), status=error.status_code, headers=headers)


def _error_for_status(status: int) -> SceneworksError:
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


def _handle_database_error(error: Exception) -> Response:
    """Answer 503 while Postgres is away or too slow: with an Idempotency-Key the request can be sent again safely."""
    log.warning("database.unreachable", reason=str(error).partition("\n")[0])
    return build_problem_response(Internal("The database cannot be reached at the moment."), status=503, retryable=True)


def _handle_unexpected_error(error: Exception) -> Response:
    log.error("request.failed", path=request.path, exc_info=error)
    return build_problem_response(Internal("Something went wrong on our side; the log has it under the request id."))


def to_invalid_request(error: ValidationError, prefix: str = "") -> InvalidRequest:
    """Convert the faults that pydantic found, each with its JSON pointer."""
    faults = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in fault["loc"])
        pointer = pointer.replace("_", "-").title() if prefix == "/headers" else pointer
        code = "unknown_field" if fault["type"] == "extra_forbidden" else fault["type"]
        faults.append(FieldError(prefix + pointer, code, fault["msg"]))
    return InvalidRequest("The request is not valid; see `errors`.", errors=tuple(faults))


def bad_query(name: str, code: str, detail: str) -> InvalidRequest:
    """Build the error for one query parameter."""
    return InvalidRequest.at(f"/query/{name}", code, detail)


def allow_anonymous(view: View) -> View:
    """Mark a view that answers without an API key; `auth.check_access` reads the mark."""
    view.allow_anonymous = True  # type: ignore[attr-defined]
    return view
