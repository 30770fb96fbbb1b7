"""Archives: sources of films, batches, schedules, reprocessing, and what became of each film run by run."""

from api.batches import diff, events, reprocess, routes, schedules
from api.batches.reprocess import add_plan_schema
from api.operations import failures
from api.videos import history, sources

ROUTE_MODULES = (sources, routes, events, diff, schedules, reprocess, history, failures)
"""In the order of the documentation."""

__all__ = ["ROUTE_MODULES", "add_plan_schema"]
