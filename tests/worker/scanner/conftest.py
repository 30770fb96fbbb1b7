"""Fixtures of the scanner's tests."""

from __future__ import annotations

from tests.support.scanned_sources import clip, scanned_source

__all__ = ["clip", "scanned_source"]
