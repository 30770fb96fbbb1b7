"""The scanner: looks through sources, so that films that stay where they are become videos. A process of its own.

    python -m api.archive.scanner

Any number of them may run: a source is claimed by one at a time, with a lease and a fence as runs are.
"""

from api.archive.scanner.serve import scan_next, serve

__all__ = ["scan_next", "serve"]
