"""Errors of the local stack. The tree in `shared.errors` is that of HTTP requests and runs, and these are neither."""

from __future__ import annotations


class FolderInUse(RuntimeError):
    """Another process runs a server or a whole stack in this folder."""
