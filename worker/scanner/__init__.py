"""The scanner: a process that looks through sources and registers the video files in them, which stay where they are.

    python -m worker.scanner

Any number of scanners may run: each source is claimed by one at a time, with a lease and a fence, as runs are.
"""

from worker.scanner.loop import run_scanner, scan_next_source

__all__ = ["run_scanner", "scan_next_source"]
