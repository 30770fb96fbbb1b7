"""The app: blueprints, keys, request ids, one log line a request, security headers, the OpenAPI document and its page.

Serve it with gunicorn, whose command line is `gunicorn_options(settings())`:

    python -m gunicorn --worker-class gthread --threads 16 ... "api.app:create_app()"
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
import time
from functools import partial
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from apiflask import APIFlask
from flask import Response, current_app, g, request, send_from_directory

from api import archive, jobs, results, search, videos, web
from api.errors import (
    KEY_COOKIE,
    MAX_JSON_BYTES,
    Problem,
    StrictRequest,
    check_text,
    handle_errors,
    open_to_all,
    problems,
)
from api.service import catalog, health, metrics, queues
from api.service.health import STREAMS, THREADS, Backlog, Services
from shared.db import connect
from shared.errors import Forbidden, Internal, InvalidRequest, NotFound, Unauthorized
from shared.files import Files
from shared.log import configure, logger
from shared.settings import Settings, settings as process_settings
from shared.values import new_id

log = logger(__name__)

UNREAD_BYTES = 1 << 16
"""Of a body, how much gunicorn reads away after an answer that came early."""
API_VERSION = "1.0.0"
"""Of the contract under `/v1`."""
MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 (gunicorn makes its own file in it, unlinked at once)
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
DOCS_ASSETS = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}
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


def create_app(settings: Settings | None = None) -> APIFlask:
    """The app on these settings, or on those of the process.

    Raises:
        Unauthorized: it would listen beyond this machine and has no keys.
        InvalidRequest: a key in the settings is not a SHA-256.
    """
    config = settings or process_settings()
    keys = _read_keys(config)
    configure()
    app = APIFlask(__name__, title="Sceneworks", version=API_VERSION, docs_path=None, static_folder=None)  # type: ignore[arg-type]
    app.request_class = StrictRequest
    app.url_map.merge_slashes = False  # an address with too many is not ours, and its redirect would be HTML
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.config.update(MAX_CONTENT_LENGTH=MAX_JSON_BYTES, AUTO_SERVERS=False, AUTO_OPERATION_ID=True)
    app.config.update(OPENAPI_VERSION="3.1.0", AUTO_404_RESPONSE=False, AUTO_VALIDATION_ERROR_RESPONSE=False)
    engine = connect(config.database_url, pool_size=THREADS)
    app.extensions["sceneworks"] = Services(
        config, engine, Files(config.data_dir), Backlog(engine, config.max_queued_runs)
    )
    handle_errors(app)
    app.before_request(_begin)
    app.before_request(partial(_guard, keys))
    app.after_request(_finish)
    _describe(app)
    for part in (videos, jobs, results, search, *archive.parts, catalog, queues, health, metrics, web):
        app.register_blueprint(part.bp)
    _document(app)
    return app


def gunicorn_options(settings: Settings) -> list[str]:
    """Command line of gunicorn, the app included.

    Threads, since most requests wait or copy bytes. `timeout` is that of the worker's own loop and not of a request: an
    upload may take hours (a stalled one is given up by `api.videos`). The heartbeat file lies in memory where there is
    such a folder: on a slow disk a busy worker would look dead. Refuses what `create_app` refuses, before any socket.
    """
    _read_keys(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    options = {
        "worker-class": "gthread",
        "workers": "1",
        "threads": str(THREADS + STREAMS),
        "bind": f"{host}:{settings.port}",
        "timeout": "60",
        "graceful-timeout": "30",
        "keep-alive": "15",
    }
    if MEMORY_FOLDER.is_dir():
        options["worker-tmp-dir"] = str(MEMORY_FOLDER)
    return [*(f"--{name}={value}" for name, value in options.items()), "--no-control-socket", "api.app:create_app()"]


def _read_keys(config: Settings) -> tuple[str, ...]:
    """Hashes of the keys that open the API."""
    keys = tuple(key.strip().lower() for key in config.api_keys.split(",") if key.strip())
    if any(not re.fullmatch(r"[0-9a-f]{64}", key) for key in keys):
        raise InvalidRequest("SCENEWORKS_API_KEYS must be SHA-256 hashes (64 hex digits), comma separated.")
    if not keys and not _loopback(config.host):
        raise Unauthorized(
            f"The API would listen on {config.host}, beyond this machine, without keys: set SCENEWORKS_API_KEYS to the "
            "SHA-256 of each key (printf %s KEY | sha256sum), or SCENEWORKS_HOST to 127.0.0.1."
        )
    return keys


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _begin() -> None:
    """Give the request its id, before anything can go wrong."""
    g.began = time.perf_counter()
    sent = request.headers.get("X-Request-Id", "")
    g.request_id = sent if REQUEST_ID.fullmatch(sent) else new_id("req")
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request=g.request_id)
    check_text(request.path)
    for name, value in request.args.items(multi=True):
        check_text(name + value)


def _guard(keys: tuple[str, ...]) -> None:
    """Who may come in. Unauthorized, or Forbidden for a request that some other site made a browser send."""
    if request.method not in {"GET", "HEAD", "OPTIONS"}:
        _refuse_other_sites()
    if not keys:
        _refuse_other_machines()
        g.key = ""
        return
    view = current_app.view_functions.get(request.endpoint or "")
    g.key = _known_key(keys)
    if not g.key and not getattr(view, "open_to_all", False):
        raise Unauthorized("Send a valid key: Authorization: Bearer KEY.")


def _known_key(keys: tuple[str, ...]) -> str:
    """Hash of the key sent, if it is one of ours. Every comparison takes the same time."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    sent = token.strip() if scheme.lower() == "bearer" else request.cookies.get(KEY_COOKIE, "")
    digest = hashlib.sha256(sent.encode("utf-8", "surrogateescape")).hexdigest()
    matches = [hmac.compare_digest(digest, key) for key in keys]
    return digest if sent and any(matches) else ""


def _refuse_other_sites() -> None:
    origin = request.headers.get("Origin")
    foreign = origin is not None and urlsplit(origin).netloc != request.host
    if foreign or request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        raise Forbidden("Another web site may not send this request.")


def _refuse_other_machines() -> None:
    """Open means open to this machine: not to a socket bound elsewhere, nor to a name made to resolve to it."""
    peer, name = request.remote_addr or "", urlsplit(f"//{request.host}").hostname or ""
    if (peer and not _loopback(peer)) or not _loopback(name):
        raise Forbidden("Without API keys this service answers to its own machine only.")


def _finish(response: Response) -> Response:
    """Headers, ETag and 304 for every JSON answer, and the access log line."""
    response.headers["X-Request-Id"] = g.request_id
    if response.status_code >= 400 and request.method == "POST" and (request.content_length or 0) > UNREAD_BYTES:
        response.headers["Connection"] = "close"  # what was not read of the body is not the next request
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.method in {"GET", "HEAD"} and response.status_code == 200 and response.is_json:
        response.add_etag()
        response.make_conditional(request.environ)
    log.info(
        "request",
        method=request.method,
        path=request.path,
        route=request.url_rule.rule if request.url_rule else None,
        status=response.status_code,
        ms=round((time.perf_counter() - g.began) * 1000, 1),
        bytes=response.content_length,
        peer=request.remote_addr,
    )
    return response


def _describe(app: APIFlask) -> None:
    """Everything in the OpenAPI document that does not belong to one route."""
    app.description = "Turns long videos into structure. Times are exact, ends are exclusive, errors are RFC 9457."
    app.license = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
    app.security_schemes = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key."},
        "cookie": {"type": "apiKey", "in": "cookie", "name": KEY_COOKIE, "description": "The same, for the page."},
    }
    app.spec_processor(_complete)


def _complete(spec: dict[str, Any] | str) -> dict[str, Any] | str:
    """Add what no decorator can say: problems that any route may answer with, security, parameters of each model."""
    assert isinstance(spec, dict)  # noqa: S101 (JSON is the only format that is served)
    schemas = spec["components"]["schemas"]
    schemas.pop("HTTPError", None)
    schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= schemas["Problem"].pop("$defs")
    catalog.add_parameters(schemas)
    archive.add_plan(schemas)
    spec["security"] = [{"key": []}, {"cookie": []}]
    spec["tags"] = list({tag["name"]: tag for tag in spec["tags"]}.values())  # several blueprints may share one
    for path, operations in spec["paths"].items():
        for operation in operations.values():
            for status, response in problems(InvalidRequest, Unauthorized, Forbidden, Internal).items():
                operation["responses"].setdefault(str(status), response)
            for status, response in operation["responses"].items():
                if status >= "400":
                    response["content"] = problems(Internal)[500]["content"]
            for parameter in operation["parameters"]:
                _never_null(parameter)
            if path in {"/healthz", "/readyz", "/metrics"}:
                operation["security"] = []
    return _flat(spec)


def _never_null(parameter: dict[str, Any]) -> None:
    """A query or header is absent, never null; a header is written as people write it."""
    if parameter["in"] == "header":
        parameter["name"] = parameter["name"].title()
    schema = parameter["schema"]
    kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    if kinds:
        schema |= kinds[0]
        schema.pop("default", None)


def _flat(spec: dict[str, Any]) -> dict[str, Any]:
    """Call a schema by its own name, wherever it was first met (`JobPage.JobRecord` -> `JobRecord`)."""
    text = re.sub(r'#/components/schemas/[A-Za-z]+\.([A-Za-z]+)"', r'#/components/schemas/\1"', json.dumps(spec))
    flat: dict[str, Any] = json.loads(text)
    schemas = flat["components"]["schemas"]
    flat["components"]["schemas"] = {name.rpartition(".")[2]: schema for name, schema in sorted(schemas.items())}
    return flat


def _document(app: APIFlask) -> None:
    """`/openapi.json`, and `/docs` from assets on this machine."""
    open_to_all(app.view_functions["openapi.spec"])
    assets = str(package_files("flask_swagger_ui") / "dist")

    def docs() -> Response:
        return Response(DOCS_PAGE, mimetype="text/html")

    def docs_file(name: str) -> Response:
        if name == "start.js":
            return Response(DOCS_START, mimetype="text/javascript")
        if name not in DOCS_ASSETS:
            raise NotFound("There is no such file.")
        return send_from_directory(assets, name, max_age=3600)

    app.add_url_rule("/docs", "docs", open_to_all(app.doc(hide=True)(docs)))
    app.add_url_rule("/docs/<name>", "docs_file", open_to_all(app.doc(hide=True)(docs_file)))
