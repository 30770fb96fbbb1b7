"""The page of a batch: its state, its videos, and what it has changed."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint
from flask import render_template, request

from api.batches.change_sums import sum_batch_changes
from api.batches.records import ITEM_STATES
from api.http.context import get_services
from api.http.paging import paginate_items, read_page_token
from api.http.problems import bad_query
from api.web.operator.dashboard import list_batch_actions
from shared.catalog import CATALOG
from shared.store.batches import batches
from shared.store.videos import videos
from shared.values.diff import CHANGE_KINDS

bp = APIBlueprint("batch", __name__, enable_openapi=False, url_prefix="/operator/batches")

VIDEOS_PER_PAGE = 50
"""On one page of the list."""
DIFF_TIMEOUT_S = 3.0
"""Seconds that a page waits for the comparison; the page reloads itself and comes further each time."""


@bp.get("/<batch_id>")
def show_batch(batch_id: str) -> str:
    """One batch. What it has changed is compared once it has ended, or on request."""
    batch = batches.get_batch(get_services().engine, batch_id)
    diff = sum_batch_changes(batch_id, DIFF_TIMEOUT_S) if batch.state.has_ended or "changed" in request.args else None
    most_changed = diff.most_changed if diff else []
    names = videos.get_videos(get_services().engine, {change.video_id for _, change, _ in most_changed})
    return render_template(
        "batch.html",
        batch=batch,
        verbs=list_batch_actions,
        menu=CATALOG,
        changes=CHANGE_KINDS,
        changed=diff,
        names={video_id: video.name for video_id, video in names.items()},
        **_list_videos(batch_id),
    )


def _list_videos(batch_id: str) -> dict[str, Any]:
    """List a page of its videos, all of them or those in one state."""
    state, after = request.args.get("state"), read_page_token("items", request.args.get("page_token"), (int,))
    if state is not None and state not in ITEM_STATES:
        raise bad_query("state", "unknown_state", f"States are: {', '.join(ITEM_STATES)}.")
    rows = batches.list_items(
        get_services().engine, batch_id, limit=VIDEOS_PER_PAGE + 1, after=after[0] if after else None,
        states=None if state is None else [state],
    )  # fmt: skip
    items, more, _ = paginate_items("items", rows, VIDEOS_PER_PAGE, lambda item: (item.position,))
    stored_videos = videos.get_videos(get_services().engine, {item.video_id for item in items})
    listed = [(item, stored_videos[item.video_id].name if item.video_id in stored_videos else "") for item in items]
    return {"films": listed, "more": more, "state": state}
