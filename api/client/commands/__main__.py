"""`python -m api.client.commands`: the command `sceneworks` where it is not installed."""

from __future__ import annotations

from api.client.commands import main

main()
