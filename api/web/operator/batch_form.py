"""The form for a batch: a preview first, then the batch, of exactly what the preview showed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apiflask import APIBlueprint
from flask import Response, render_template, request

from api.batches import service
from api.batches.schemas import BatchBody
from api.http.context import get_services
from api.http.strict_json import read_json
from api.web.operator import form_parsing
from api.web.operator.dashboard import redirect_to
from api.web.operator.form_parsing import FormFault, FormValues
from shared.errors import InvalidRequest, SceneworksError, errors_by_code
from shared.store.batches import batches
from shared.store.batches.selection import BatchPlan
from shared.store.videos import sources

bp = APIBlueprint("asking", __name__, enable_openapi=False, url_prefix="/operator/batches")

BATCH_KINDS = ("reprocess", "batch")


@bp.get("/new")
def show_form() -> str:
    """An empty form, or one filled with the work of a batch (`?like=`)."""
    template_batch_id = request.args.get("like")
    values = form_parsing.DEFAULT_VALUES if template_batch_id is None else _copy_batch(template_batch_id)
    return render_form("batch_form.html", values)


@bp.post("/check")
def preview_batch() -> tuple[str, int]:
    """Preview the batch without storing anything; the form with its faults where it cannot be created."""
    values = request.form.to_dict(flat=False)
    try:
        kind = _parse_kind(values.get("kind", [""])[0])
        body = form_parsing.validate_body(BatchBody, form_parsing.parse_batch(values))
        plan = service.preview_batch(body, starts_now=True)
    except SceneworksError as error:
        return render_form("batch_form.html", values, faults=form_parsing.list_faults(error, values)), error.status
    return render_form("batch_form.html", values, plan=plan, kind=kind, asked=body.model_dump_json()), 200


@bp.post("")
def start_batch() -> Response:
    """Create the batch of the preview."""
    body = form_parsing.validate_body(BatchBody, read_json(request.form.get("asked", "").encode()))
    kind = _parse_kind(request.form.get("kind", ""))
    return redirect_to(f"/operator/batches/{service.create_batch(body, kind).id}")


def render_form(
    template: str, values: FormValues, faults: Sequence[FormFault] = (), plan: BatchPlan | None = None, **more: Any
) -> str:
    """Render the form with its values, faults and preview."""
    return render_template(
        template,
        given=values,
        faults=faults,
        marked={fault.field: fault.detail for fault in faults},
        plan=plan,
        menu=form_parsing.list_model_fields(values),
        sources=sources.list_sources(get_services().engine),
        codes=[(code, code) for code in sorted(errors_by_code())],
        **more,
    )


def _parse_kind(text: str) -> str:
    if text not in BATCH_KINDS:
        raise InvalidRequest(f"A batch is one of: {', '.join(BATCH_KINDS)}.")
    return text


def _copy_batch(batch_id: str) -> FormValues:
    """Fill the form with the work of an earlier batch."""
    batch = batches.get_batch(get_services().engine, batch_id)
    kind = "batch" if batch.kind == "batch" else "reprocess"
    return form_parsing.fill_from_work(batch.work) | {"name": [batch.name], "kind": [kind]}
