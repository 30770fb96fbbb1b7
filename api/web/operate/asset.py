"""Style and scripts of the operator's pages."""

from __future__ import annotations

from pathlib import Path

from apiflask import APIBlueprint
from flask import Response, send_from_directory

from api.errors import open_to_all
from shared.errors import NotFound

STATIC = Path(__file__).parent / "static"
ASSETS = ("operator.css", "lanes.js")
bp = APIBlueprint("assets", __name__, enable_openapi=False, url_prefix="/web/operate")


@bp.get("/<name>")
@open_to_all
def asset(name: str) -> Response:
    """One file."""
    if name not in ASSETS:
        raise NotFound("There is no such file.")
    return send_from_directory(STATIC, name)
