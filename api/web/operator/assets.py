"""Style and scripts of the operator's pages."""

from __future__ import annotations

from pathlib import Path

from apiflask import APIBlueprint
from flask import Response, send_from_directory

from api.http.problems import allow_anonymous
from shared.errors import NotFound

STATIC_FOLDER = Path(__file__).parent / "static"
ASSETS = ("operator.css", "diff_lanes.js")
bp = APIBlueprint("assets", __name__, enable_openapi=False, url_prefix="/web/operator")


@bp.get("/<name>")
@allow_anonymous
def send_asset(name: str) -> Response:
    """One file."""
    if name not in ASSETS:
        raise NotFound("There is no such file.")
    return send_from_directory(STATIC_FOLDER, name)
