"""Archives: sources of films, batches, schedules, reprocessing, and what became of each film run by run."""

from api.archive import batches, changes, events, failures, history, reprocess, schedules, sources
from api.archive.reprocess import add_plan

parts = (sources, batches, events, changes, schedules, reprocess, history, failures)
"""In the order of the documentation."""

__all__ = ["add_plan", "parts"]
