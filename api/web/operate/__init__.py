"""The operator's pages: workers, queues, failures, batches, schedules and sources, and what changed by them."""

from apiflask import APIBlueprint

from api.web.operate.asking import bp as asking
from api.web.operate.asset import bp as asset
from api.web.operate.batch import bp as batch
from api.web.operate.board import bp as board
from api.web.operate.differences import bp as differences
from api.web.operate.schedule import bp as schedule

bp = APIBlueprint("operate", __name__, template_folder="templates", enable_openapi=False)
"""To stand inside that of the page: its keys, its policy and its way to say problems hold here too."""
for _part in (board, asking, batch, schedule, differences, asset):
    bp.register_blueprint(_part)

__all__ = ["bp"]
