"""`python -m worker.cli`: the same as `sceneworks-worker`."""

from worker.cli import main

main()
