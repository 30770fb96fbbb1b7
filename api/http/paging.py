"""Pages of lists, and the opaque tokens of the next page."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from flask import request

from api.http.problems import T, bad_query


def paginate_items(
    kind: str, rows: Sequence[T], limit: int, cursor: Callable[[T], tuple[Any, ...]]
) -> tuple[list[T], str | None, dict[str, str]]:
    """Split `limit + 1` rows into the items of this page, the token of the next page, and its `Link` header."""
    items = list(rows[:limit])
    if len(rows) <= limit:
        return items, None, {}
    token = write_page_token(kind, cursor(items[-1]))
    query = [(name, value) for name, value in request.args.items(multi=True) if name != "page_token"]
    return items, token, {"Link": f'<{request.path}?{urlencode([*query, ("page_token", token)])}>; rel="next"'}


def write_page_token(kind: str, cursor: tuple[Any, ...]) -> str:
    """Encode the cursor after which the next page begins as an opaque token."""
    plain = [part.isoformat() if isinstance(part, datetime) else part for part in cursor]
    return base64.urlsafe_b64encode(json.dumps([kind, *plain]).encode()).decode().rstrip("=")


def read_page_token(kind: str, token: str | None, shape: tuple[type, ...]) -> Any:
    """Decode a page token; InvalidRequest unless it belongs to this kind of list and its cursor has this shape."""
    if token is None:
        return None
    try:
        token_kind, *parts = json.loads(
            base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        )
        cursor = tuple(_parse_cursor_part(part, part_type) for part, part_type in zip(parts, shape, strict=True))
    except (ValueError, TypeError, RecursionError):
        raise bad_query("page_token", "bad_token", "This page_token was not made by this list.") from None
    if token_kind != kind:
        raise bad_query("page_token", "bad_token", "This page_token belongs to another list.")
    return cursor


def _parse_cursor_part(part: Any, part_type: type) -> Any:
    """Read one part of a cursor. ValueError, TypeError for what Postgres would refuse to compare with."""
    if part_type is datetime:
        moment = datetime.fromisoformat(part)
        if moment.tzinfo is None:
            raise ValueError(part)
        return moment
    if isinstance(part, bool) or not isinstance(part, part_type):
        raise TypeError(part)
    if (isinstance(part, str) and not part.isprintable()) or (isinstance(part, int) and abs(part) >= 2**31):
        raise ValueError(part)
    return part
