"""`python -m api.client`: the command `sceneworks`, where it is not installed."""

from __future__ import annotations

from api.client import main

main()
