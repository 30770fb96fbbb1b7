"""Identifiers: a prefix and a UUIDv7, sortable by creation time."""

from __future__ import annotations

import uuid_utils


def new_id(prefix: str) -> str:
    """A sortable id: `prefix_` and the 32 hex digits of a UUIDv7."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"
