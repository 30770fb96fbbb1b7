"""Routes of models and workers: the catalog, with what the live workers announce about it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from apiflask import APIBlueprint
from pydantic import Field

from api.admission import list_model_offers
from api.http.context import get_services
from api.http.problems import document_problems
from api.http.schemas import Record
from shared.catalog import CATALOG, ModelSpec
from shared.errors import NotFound, WeightsCorrupt, WeightsMissing
from shared.store import workers
from shared.values import Worker
from shared.values.workers import ModelOffer

bp = APIBlueprint("catalog", __name__, url_prefix="/v1", tag="Models and workers")

WeightsState = Literal["present", "missing", "corrupt", "unknown"]
WEIGHTS_STATES: dict[str, WeightsState] = {WeightsMissing.code: "missing", WeightsCorrupt.code: "corrupt"}


class WeightsRecord(Record):
    """The weights of a model, and whether the live workers have them."""

    name: str
    fingerprint: str | None = Field(description="Pinned, or what the workers announce; null while none has them.")
    size: int | None = Field(description="Bytes; null for weights that each operator imports.")
    licence: str
    origin: str
    how: str = Field(description="The command that gets them.")
    state: WeightsState = Field(description="`unknown` while no worker that serves the model is live.")


class ServingWorkerRecord(Record):
    """A live worker that serves the model, or says why it cannot."""

    id: str
    state: str
    device: str
    precision: str
    error: dict[str, Any] | None


class ModelRecord(Record):
    """One entry of the catalog."""

    name: str
    title: str
    summary: str
    paper: str
    params: dict[str, Any] = Field(description="JSON Schema of the parameters, defaults included.")
    needs: list[str] = Field(description="Models that are run first, without being requested.")
    optional_when: dict[str, Any] = Field(description="Values of parameters with which none of these is needed.")
    results: list[str] = Field(description="Kinds of result.")
    artifacts: list[str] = Field(description="Kinds of artifact.")
    weights: WeightsRecord | None
    available: bool = Field(description="A live worker serves it.")
    workers: list[ServingWorkerRecord]


class LimitsRecord(Record):
    """What this service accepts."""

    max_video_s: float
    max_upload_bytes: int


class CatalogRecord(Record):
    """Every model."""

    items: list[ModelRecord]
    limits: LimitsRecord


class WorkerModelRecord(Record):
    """A model as one worker serves it."""

    model: str
    weights: str | None
    error: dict[str, Any] | None


class WorkerRecord(Record):
    """A worker as it announces itself."""

    id: str
    state: str
    reason: str | None
    models: list[WorkerModelRecord]
    device: str
    precision: str
    run_id: str | None
    live: bool
    started_at: datetime
    heartbeat_at: datetime


class WorkerList(Record):
    """Workers that sent a heartbeat in the last day."""

    items: list[WorkerRecord]


@bp.get("/models")
@bp.output(CatalogRecord)
def list_models() -> dict[str, Any]:
    """The catalog: parameters, needs, results, weights, and whether a worker is live."""
    config, known_workers = get_services().settings, workers.list_workers(get_services().engine)
    limits = {"max_video_s": config.max_video_s, "max_upload_bytes": config.max_upload_bytes}
    return {"items": [_build_model_record(spec, known_workers) for spec in CATALOG.values()], "limits": limits}


@bp.get("/models/<name>")
@bp.output(ModelRecord)
@bp.doc(responses=document_problems(NotFound))
def show_model(name: str) -> dict[str, Any]:
    """One entry of the catalog."""
    if name not in CATALOG:
        raise NotFound(f"There is no model of that name. Models: {', '.join(CATALOG)}.")
    return _build_model_record(CATALOG[name], workers.list_workers(get_services().engine))


@bp.get("/workers")
@bp.output(WorkerList)
def list_workers() -> dict[str, Any]:
    """List workers that are live or were so within a day."""
    return {"items": [worker.to_dict() for worker in workers.list_workers(get_services().engine)]}


def add_parameter_schemas(schemas: dict[str, Any]) -> None:
    """Spell out in the OpenAPI document which parameters go with which model."""
    choices = []
    for spec in CATALOG.values():
        name = spec.params.__name__
        schemas[name] = spec.params.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schemas[name].pop("$defs", {})
        properties: dict[str, Any] = {"model": {"const": spec.name}, "params": {"$ref": f"#/components/schemas/{name}"}}
        if "start_s" not in schemas[name]["properties"]:
            properties["range"] = {"type": "null"}
        needed = ["model", "params"] if schemas[name].get("required") else ["model"]
        choices.append({"properties": properties, "required": needed})
    for name in [name for name in schemas if name.rpartition(".")[2] == "AnalysisBody"]:
        schemas[name]["oneOf"] = choices


def _build_model_record(spec: ModelSpec, known_workers: list[Worker]) -> dict[str, Any]:
    serving = list_model_offers(spec.name, known_workers)
    return {
        "name": spec.name,
        "title": spec.title,
        "summary": spec.summary,
        "paper": spec.paper,
        "params": spec.params.model_json_schema(),
        "needs": list(spec.needs),
        "optional_when": dict(spec.optional_when),
        "results": list(spec.results),
        "artifacts": list(spec.artifacts),
        "weights": _build_weights_record(spec, [entry for _, entry in serving]),
        "available": any(worker.serves_model(spec.name) for worker, _ in serving),
        "workers": [
            {name: getattr(worker, name) for name in ("id", "state", "device", "precision")} | {"error": entry["error"]}
            for worker, entry in serving
        ],
    }


def _build_weights_record(spec: ModelSpec, offers: list[ModelOffer]) -> dict[str, Any] | None:
    if spec.weights is None:
        return None
    errors = [offer["error"] for offer in offers]
    states = [WEIGHTS_STATES.get(error["code"], "unknown") if error else "present" for error in errors]
    announced = next((offer["weights"] for offer in offers if offer["weights"]), None)
    state = next((state for state in ("present", "missing", "corrupt") if state in states), "unknown")
    return {
        "name": spec.weights.name,
        "fingerprint": spec.weights.sha256 or announced,
        "size": spec.weights.size,
        "licence": spec.weights.licence,
        "origin": spec.weights.origin,
        "how": spec.weights.how,
        "state": state,
    }
