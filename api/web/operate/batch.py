"""The page of a batch: how it stands, its films, and what it has changed."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint
from flask import render_template, request

from api.archive.batches import ITEM_STATES
from api.archive.changes import whole
from api.errors import bad_query, page, read_token
from api.service.health import services
from api.web.operate.board import verbs
from shared.catalog import MENU
from shared.store import videos
from shared.store.archive import batches
from shared.values.archive.diff import CHANGES

bp = APIBlueprint("batch", __name__, enable_openapi=False, url_prefix="/operator/batches")

FILMS = 50
"""On one page of the list."""
PATIENCE_S = 3.0
"""How long a page waits for the comparison; it renews itself, and the next one comes further."""


@bp.get("/<batch_id>")
def show(batch_id: str) -> str:
    """One batch. What it has changed is compared once it has ended, or when that is asked for."""
    batch = batches.get(services().engine, batch_id)
    changed = whole(batch_id, PATIENCE_S) if batch.state.ended or "changed" in request.args else None
    most = changed.most if changed else []
    names = videos.several(services().engine, {change.video_id for _, change, _ in most})
    return render_template(
        "batch.html",
        batch=batch,
        verbs=verbs,
        menu=MENU,
        changes=CHANGES,
        changed=changed,
        names={video_id: video.name for video_id, video in names.items()},
        **_films(batch_id),
    )


def _films(batch_id: str) -> dict[str, Any]:
    """A page of its films, all of them or those in one state."""
    state, after = request.args.get("state"), read_token("items", request.args.get("page_token"), (int,))
    if state is not None and state not in ITEM_STATES:
        raise bad_query("state", "unknown_state", f"States are: {', '.join(ITEM_STATES)}.")
    found = batches.items(
        services().engine, batch_id, limit=FILMS + 1, after=after[0] if after else None,
        states=None if state is None else [state],
    )  # fmt: skip
    items, more, _ = page("items", found, FILMS, lambda item: (item.position,))
    known = videos.several(services().engine, {item.video_id for item in items})
    films = [(item, known[item.video_id].name if item.video_id in known else "") for item in items]
    return {"films": films, "more": more, "state": state}
