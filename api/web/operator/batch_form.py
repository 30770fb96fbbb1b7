"""The form for a batch: first what it would come to, then the batch, of exactly what was shown."""

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
    """What it would come to; nothing is written. The form again, with its faults, where it cannot be done."""
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
    """The batch that was shown."""
    body = form_parsing.validate_body(BatchBody, read_json(request.form.get("asked", "").encode()))
    kind = _parse_kind(request.form.get("kind", ""))
    return redirect_to(f"/operator/batches/{service.create_batch(body, kind).id}")


def render_form(
    template: str, values: FormValues, faults: Sequence[FormFault] = (), plan: BatchPlan | None = None, **more: Any
) -> str:
    """The form with what was given, its faults, and what it would come to."""
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
    """The form of a batch that there was."""
    batch = batches.get_batch(get_services().engine, batch_id)
    kind = "batch" if batch.kind == "batch" else "reprocess"
    return form_parsing.fill_from_work(batch.work) | {"name": [batch.name], "kind": [kind]}
