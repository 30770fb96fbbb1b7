"""Route of reprocessing: estimate what bringing videos up to date would take, or start the batch that does it."""

from __future__ import annotations

from typing import Any

from apiflask import APIBlueprint
from flask import jsonify
from pydantic import Field

from api.batches import service
from api.batches.records import BatchRecord, PlanRecord
from api.batches.routes import CREATE_ERRORS, build_created_response
from api.batches.schemas import BatchBody
from api.http.problems import document_problems
from api.http.schemas import Query

bp = APIBlueprint("reprocess", __name__, url_prefix="/v1/reprocess", tag="Batches")

SCHEMA_REF = "#/components/schemas/{model}"
PLAN_DOC = {"description": "`dry_run`: what it would take.", "content": {
    "application/json": {"schema": {"$ref": SCHEMA_REF.format(model="PlanRecord")}}}}  # fmt: skip


class ReprocessQuery(Query):
    """Whether to start it."""

    dry_run: bool = Field(False, description="Estimate what it would take, and start nothing (200).")


def add_plan_schema(schemas: dict[str, Any]) -> None:
    """Add the plan to the OpenAPI document, as no route answers with it alone."""
    plan = PlanRecord.model_json_schema(ref_template=SCHEMA_REF)
    schemas |= plan.pop("$defs")
    schemas["PlanRecord"] = plan


@bp.post("")
@bp.input(BatchBody, arg_name="body")
@bp.input(ReprocessQuery, location="query", arg_name="query")
@bp.output(BatchRecord, 202, description="The batch that was started.")
@bp.doc(responses=document_problems(*CREATE_ERRORS, extra={200: PLAN_DOC}))
def reprocess_videos(body: BatchBody, query: ReprocessQuery) -> Any:
    """Bring videos up to date: those without results of a model, or with results of other weights or parameters.

    `selection.only` is `missing_or_outdated` unless it says otherwise. What is done is left out; started again after
    an interruption, it does the rest. Old results stay until the new run is done, and can be read by its id after. 400
    when nothing is left to do.
    """
    if query.dry_run:
        return jsonify(service.preview_batch(body, only="missing_or_outdated").to_dict())
    return build_created_response(service.create_batch(body, "reprocess", only="missing_or_outdated"))
