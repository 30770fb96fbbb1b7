"""The command `sceneworks`: the HTTP API in a terminal, and the whole system on one machine."""

from __future__ import annotations


def main() -> None:
    """Entry point."""
    from api.client.commands.jobs import app

    app()
