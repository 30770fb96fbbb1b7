"""The operator's pages: workers, queues, failures, batches, schedules and sources, and what changed by them."""

from apiflask import APIBlueprint

from api.web.operator.assets import bp as asset
from api.web.operator.batch_form import bp as asking
from api.web.operator.batches import bp as batch
from api.web.operator.dashboard import bp as board
from api.web.operator.diff import bp as differences
from api.web.operator.schedules import bp as schedule

bp = APIBlueprint("operate", __name__, template_folder="templates", enable_openapi=False)
"""Nested in the blueprint of the pages, whose keys, content policy and problem pages apply here too."""
for _blueprint in (board, asking, batch, schedule, differences, asset):
    bp.register_blueprint(_blueprint)

__all__ = ["bp"]
