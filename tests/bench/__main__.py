"""`python -m tests.bench`: a measurement in a process of its own."""

from __future__ import annotations

import sys

from tests.bench import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
