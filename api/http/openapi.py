"""The OpenAPI document and the page that shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files as package_files
from typing import Any

from apiflask import APIFlask
from flask import Response, send_from_directory

from api.http.problems import KEY_COOKIE, Problem, allow_anonymous, document_problems
from shared.errors import Forbidden, Internal, InvalidRequest, NotFound, Unauthorized

AddSchemas = Callable[[dict[str, Any]], None]
"""Adds schemas to those of the OpenAPI document, by name."""

DOCS_ASSETS = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
DOCS_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sceneworks API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/docs/swagger-ui.css"><link rel="icon" href="/docs/favicon-32x32.png"></head>
<body><div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script></body></html>
"""


DOCS_START = (
    'SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null, '
    "tryItOutEnabled: true, defaultModelsExpandDepth: 0});\n"
)


def add_api_metadata(app: APIFlask, add_schemas: Sequence[AddSchemas]) -> None:
    """Add everything to the OpenAPI document that does not belong to one route.

    Args:
        app: whose document it is.
        add_schemas: functions that add schemas which no route names. They are passed in, as this package knows none of
            the packages whose routes it serves.
    """
    app.description = "Turns long videos into structure. Times are exact, ends are exclusive, errors are RFC 9457."
    app.license = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
    app.security_schemes = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key."},
        "cookie": {"type": "apiKey", "in": "cookie", "name": KEY_COOKIE, "description": "The same, for the page."},
    }
    app.spec_processor(partial(_complete_openapi, add_schemas))


def _complete_openapi(add_schemas: Sequence[AddSchemas], spec: dict[str, Any] | str) -> dict[str, Any] | str:
    """Add what no decorator states: problems that any route may answer with, security, parameters of each model."""
    assert isinstance(spec, dict)  # noqa: S101 (JSON is the only format that is served)
    schemas = spec["components"]["schemas"]
    schemas.pop("HTTPError", None)
    schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= schemas["Problem"].pop("$defs")
    for add in add_schemas:
        add(schemas)
    spec["security"] = [{"key": []}, {"cookie": []}]
    spec["tags"] = list({tag["name"]: tag for tag in spec["tags"]}.values())  # several blueprints may share one
    for path, operations in spec["paths"].items():
        for operation in operations.values():
            for status, response in document_problems(InvalidRequest, Unauthorized, Forbidden, Internal).items():
                operation["responses"].setdefault(str(status), response)
            for status, response in operation["responses"].items():
                if status >= "400":
                    response["content"] = document_problems(Internal)[500]["content"]
            for parameter in operation["parameters"]:
                _never_null(parameter)
            if path in {"/healthz", "/readyz", "/metrics"}:
                operation["security"] = []
    return flatten_schema_names(spec)


def _never_null(parameter: dict[str, Any]) -> None:
    """Remove null from a query parameter or header, which is absent instead; write a header in title case."""
    if parameter["in"] == "header":
        parameter["name"] = parameter["name"].title()
    schema = parameter["schema"]
    kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    if kinds:
        schema |= kinds[0]
        schema.pop("default", None)


def flatten_schema_names(spec: dict[str, Any]) -> dict[str, Any]:
    """Call a schema by its own name, wherever it was first met (`JobPage.JobRecord` -> `JobRecord`).

    ValueError for two different schemas of one name: the second would silently replace the first.
    """
    text = re.sub(r'#/components/schemas/[A-Za-z]+\.([A-Za-z]+)"', r'#/components/schemas/\1"', json.dumps(spec))
    flattened: dict[str, Any] = json.loads(text)
    schemas: dict[str, Any] = {}
    for qualified_name, schema in sorted(flattened["components"]["schemas"].items()):
        name = qualified_name.rpartition(".")[2]
        if schemas.setdefault(name, schema) != schema:
            raise ValueError(f"two different schemas are called {name}: rename one of the classes")
    flattened["components"]["schemas"] = schemas
    return flattened


def add_docs_routes(app: APIFlask) -> None:
    """`/openapi.json`, and `/docs` from assets on this machine."""
    allow_anonymous(app.view_functions["openapi.spec"])
    assets = str(package_files("flask_swagger_ui") / "dist")

    def serve_docs_page() -> Response:
        return Response(DOCS_PAGE, mimetype="text/html")

    def serve_docs_file(name: str) -> Response:
        if name == "start.js":
            return Response(DOCS_START, mimetype="text/javascript")
        if name not in DOCS_ASSETS:
            raise NotFound("There is no such file.")
        return send_from_directory(assets, name, max_age=3600)

    app.add_url_rule("/docs", "docs", allow_anonymous(app.doc(hide=True)(serve_docs_page)))
    app.add_url_rule("/docs/<name>", "docs_file", allow_anonymous(app.doc(hide=True)(serve_docs_file)))
