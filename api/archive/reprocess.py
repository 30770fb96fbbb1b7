"""Reprocessing: what bringing an archive up to date would come to, and the batch that does it."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint
from flask import jsonify
from pydantic import Field

from api.archive.asked import BatchBody, check_can_run, work_of
from api.archive.batches import REFUSED, accepted
from api.archive.records import BatchRecord, PlanRecord
from api.errors import Query, problems
from api.service.health import services
from shared.store.archive import batches, planning
from shared.store.archive.batches import NewBatch

bp = APIBlueprint("reprocess", __name__, url_prefix="/v1/reprocess", tag="Batches")

REFERENCE = "#/components/schemas/{model}"
PLAN_DOC = {"description": "`dry_run`: what it would come to.", "content": {
    "application/json": {"schema": {"$ref": REFERENCE.format(model="PlanRecord")}}}}  # fmt: skip


class ReprocessQuery(Query):
    """Whether to do it."""

    dry_run: bool = Field(False, description="Say what it would come to, and do nothing (200).")


def add_plan(schemas: dict[str, Any]) -> None:
    """Describe the plan in the OpenAPI document, as no route answers with it alone."""
    plan = PlanRecord.model_json_schema(ref_template=REFERENCE)
    schemas |= plan.pop("$defs")
    schemas["PlanRecord"] = plan


@bp.post("")
@bp.input(BatchBody, arg_name="body")
@bp.input(ReprocessQuery, location="query", arg_name="query")
@bp.output(BatchRecord, 202, description="The batch that does it.")
@bp.doc(responses=problems(*REFUSED, also={200: PLAN_DOC}))
def reprocess(body: BatchBody, query: ReprocessQuery) -> Any:
    """Bring videos up to date: those that are missing a model, or have it by other weights or parameters.

    `selection.only` is `missing_or_outdated` unless it says otherwise. What is done is left out; started again after
    an interruption, it does the rest. Old results stay until the new run is done, and can be read by its id after. 400
    when nothing is left to do.
    """
    work = work_of(body, only="missing_or_outdated")
    check_can_run(work, new=not query.dry_run)
    if query.dry_run:
        return jsonify(planning.dry_run(services().engine, work).record())
    return accepted(batches.create(services().engine, NewBatch(body.title, work, kind="reprocess")))
