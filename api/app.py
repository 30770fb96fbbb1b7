"""The Flask app: blueprints, API keys, request ids, an access log line, security headers, the OpenAPI document.

Serve it with gunicorn, whose command line is `gunicorn_options(settings())`:

    python -m gunicorn --worker-class gthread --threads 16 ... "api.app:create_app()"
"""

from __future__ import annotations

import re
import time
from functools import partial

import structlog
from apiflask import APIFlask
from flask import Response, g, request

from api import jobs, search, videos, web
from api.batches import diff, events, reprocess, routes as batches, schedules
from api.http.auth import check_access, read_api_keys
from api.http.context import THREADS, Backlog, Services
from api.http.openapi import add_api_metadata, add_docs_routes
from api.http.problems import register_error_handlers
from api.http.strict_json import MAX_JSON_BYTES, StrictRequest, check_text
from api.operations import failures, health, metrics, models, queues
from api.results import artifacts, routes as results
from api.videos import history, sources
from shared.db import create_db_engine
from shared.log import configure_logging, get_logger
from shared.settings import Settings, get_settings as process_settings
from shared.storage import ContentStorage
from shared.values import new_id

log = get_logger(__name__)

MAX_UNREAD_BYTES = 1 << 16
"""Bytes of an unread body that gunicorn discards before it takes the next request of a connection."""
API_VERSION = "1.0.0"
"""Version of the HTTP contract below `/v1`."""
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}


ROUTE_MODULES = (
    videos, jobs, artifacts, results, search, sources, batches, events, diff, schedules, reprocess, history, failures,
    models, queues, health, metrics, web,
)  # fmt: skip
"""Every module with a blueprint, in the order of the documentation."""


def create_app(settings: Settings | None = None) -> APIFlask:
    """Create the app with these settings, or with those of the process.

    Raises:
        Unauthorized: the app would listen beyond this machine without keys.
        InvalidRequest: a key in the settings is not a SHA-256.
    """
    config = settings or process_settings()
    keys = read_api_keys(config)
    configure_logging()
    app = APIFlask(__name__, title="Sceneworks", version=API_VERSION, docs_path=None, static_folder=None)  # type: ignore[arg-type]
    app.request_class = StrictRequest
    app.url_map.merge_slashes = False  # a redirect to the merged path would be an HTML answer
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.config.update(MAX_CONTENT_LENGTH=MAX_JSON_BYTES, AUTO_SERVERS=False, AUTO_OPERATION_ID=True)
    app.config.update(OPENAPI_VERSION="3.1.0", AUTO_404_RESPONSE=False, AUTO_VALIDATION_ERROR_RESPONSE=False)
    engine = create_db_engine(config.database_url, pool_size=THREADS)
    app.extensions["sceneworks"] = Services(
        config, engine, ContentStorage(config.data_dir), Backlog(engine, config.max_queued_runs)
    )
    register_error_handlers(app)
    app.before_request(_start_request)
    app.before_request(partial(check_access, keys))
    app.after_request(_finish_response)
    add_api_metadata(app, (models.add_parameter_schemas, reprocess.add_plan_schema))
    for module in ROUTE_MODULES:
        app.register_blueprint(module.bp)
    add_docs_routes(app)
    return app


def _start_request() -> None:
    """Give the request its id before anything can fail, and refuse text that Postgres cannot store."""
    g.began = time.perf_counter()
    client_request_id = request.headers.get("X-Request-Id", "")
    g.request_id = client_request_id if REQUEST_ID.fullmatch(client_request_id) else new_id("req")
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request=g.request_id)
    check_text(request.path)
    for name, value in request.args.items(multi=True):
        check_text(name + value)


def _finish_response(response: Response) -> Response:
    """Add headers, ETag and 304 to every JSON answer, and write the access log line."""
    response.headers["X-Request-Id"] = g.request_id
    if response.status_code >= 400 and request.method == "POST" and (request.content_length or 0) > MAX_UNREAD_BYTES:
        response.headers["Connection"] = "close"  # the unread rest of the body must not be parsed as the next request
    for name, value in SECURITY_HEADERS.items():
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
