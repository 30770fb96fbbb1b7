"""The scanner: looks through sources, so that films that stay where they are become videos. A process of its own.

    python -m worker.scanner

Any number of them may run: a source is claimed by one at a time, with a lease and a fence as runs are.
"""

from worker.scanner.loop import run_scanner, scan_next_source

__all__ = ["run_scanner", "scan_next_source"]
