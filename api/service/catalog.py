"""The menu as callers see it, with what the live workers say about it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Literal

from apiflask import APIBlueprint
from pydantic import Field
from sqlalchemy import Engine

from api.errors import Record, problems
from api.service.health import services
from shared.catalog import MENU, ModelSpec
from shared.errors import ModelUnavailable, NotFound, SceneworksError, WeightsCorrupt, WeightsMissing
from shared.store import workers
from shared.store.archive import queues
from shared.store.plan import Analysis, whole
from shared.values import Worker

bp = APIBlueprint("catalog", __name__, url_prefix="/v1", tag="Models and workers")

WeightsState = Literal["present", "missing", "corrupt", "unknown"]
STATES: dict[str, WeightsState] = {WeightsMissing.code: "missing", WeightsCorrupt.code: "corrupt"}


class WeightsRecord(Record):
    """The weights of a model, and whether the live workers have them."""

    name: str
    fingerprint: str | None = Field(description="Pinned, or what the workers announce; null while none has them.")
    size: int | None = Field(description="Bytes; null for weights that each operator imports.")
    licence: str
    origin: str
    how: str = Field(description="The command that gets them.")
    state: WeightsState = Field(description="`unknown` while no worker that serves the model is live.")


class ServingRecord(Record):
    """A live worker that serves the model, or says why it cannot."""

    id: str
    state: str
    device: str
    precision: str
    error: dict[str, Any] | None


class ModelRecord(Record):
    """One entry of the menu."""

    name: str
    title: str
    summary: str
    paper: str
    params: dict[str, Any] = Field(description="JSON Schema of the parameters, defaults included.")
    needs: list[str] = Field(description="Models that are run first, unasked.")
    needless: dict[str, Any] = Field(description="Values of parameters with which none of these is needed.")
    results: list[str] = Field(description="Kinds of result.")
    artifacts: list[str] = Field(description="Kinds of artifact.")
    weights: WeightsRecord | None
    available: bool = Field(description="A live worker serves it.")
    workers: list[ServingRecord]


class Limits(Record):
    """What this service takes."""

    max_video_s: float
    max_upload_bytes: int


class Menu(Record):
    """Every model."""

    items: list[ModelRecord]
    limits: Limits


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
    """Workers heard of in the last day."""

    items: list[WorkerRecord]


@bp.get("/models")
@bp.output(Menu)
def menu() -> dict[str, Any]:
    """The menu: parameters, needs, results, weights, and whether a worker is live."""
    config, heard = services().settings, workers.all(services().engine)
    limits = {"max_video_s": config.max_video_s, "max_upload_bytes": config.max_upload_bytes}
    return {"items": [_record(spec, heard) for spec in MENU.values()], "limits": limits}


@bp.get("/models/<name>")
@bp.output(ModelRecord)
@bp.doc(responses=problems(NotFound))
def show(name: str) -> dict[str, Any]:
    """One entry of the menu."""
    if name not in MENU:
        raise NotFound(f"There is no model of that name. Models: {', '.join(MENU)}.")
    return _record(MENU[name], workers.all(services().engine))


@bp.get("/workers")
@bp.output(WorkerList)
def heard_of() -> dict[str, Any]:
    """Workers, live or lately gone."""
    return {"items": [worker.record() for worker in workers.all(services().engine)]}


def check_served(analyses: Sequence[Analysis], heard: list[Worker]) -> None:
    """Refuse what every live worker of a model says it cannot do; without any the ledger accepts and waits.

    Raises:
        WeightsMissing, WeightsCorrupt: and the parameters ask for weights.
        ModelUnavailable: some other complaint.
    """
    for analysis in analyses:
        spec = MENU[analysis.model]
        _check(spec, spec.weights_for(analysis.params) is not None, heard)
        for need in spec.needs_for(analysis.params):
            _check(MENU[need], MENU[need].weights is not None, heard)


def check_open(engine: Engine, analyses: Sequence[Analysis]) -> None:
    """ModelUnavailable when a queue that a job of these would fill is being drained."""
    check_models_open(engine, {one.model for one, _ in whole(analyses)})


def check_models_open(engine: Engine, models: Collection[str]) -> None:
    """The same for runs of these models."""
    draining = queues.draining(engine, models)
    if draining:
        raise ModelUnavailable(f"The queue of {', '.join(draining)} is being drained: no new work until it is open.")


def _check(spec: ModelSpec, needs_weights: bool, heard: list[Worker]) -> None:
    errors = [entry["error"] for _, entry in _serving(spec.name, heard)]
    if not errors or not all(errors):
        return
    fault = _fault(errors[0]["code"])
    if needs_weights or fault is ModelUnavailable:
        detail = f"No worker can run {spec.name}: {errors[0]['detail']}"
        if spec.weights and fault is WeightsMissing and spec.weights.how not in detail:
            detail += f" To get them: {spec.weights.how}"
        raise fault(detail)


def add_parameters(schemas: dict[str, Any]) -> None:
    """Spell out in the OpenAPI document which parameters go with which model."""
    choices = []
    for spec in MENU.values():
        name = spec.params.__name__
        schemas[name] = spec.params.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schemas[name].pop("$defs", {})
        said: dict[str, Any] = {"model": {"const": spec.name}, "params": {"$ref": f"#/components/schemas/{name}"}}
        if "start_s" not in schemas[name]["properties"]:
            said["range"] = {"type": "null"}
        needed = ["model", "params"] if schemas[name].get("required") else ["model"]
        choices.append({"properties": said, "required": needed})
    for name in [name for name in schemas if name.rpartition(".")[2] == "AnalysisBody"]:
        schemas[name]["oneOf"] = choices


def _fault(code: str) -> type[SceneworksError]:
    return {WeightsMissing.code: WeightsMissing, WeightsCorrupt.code: WeightsCorrupt}.get(code, ModelUnavailable)


def _serving(model: str, heard: list[Worker]) -> list[tuple[Worker, dict[str, Any]]]:
    """Live workers with what they say about the model."""
    live = [worker for worker in heard if worker.live]
    return [(worker, entry) for worker in live for entry in worker.models if entry["model"] == model]


def _record(spec: ModelSpec, heard: list[Worker]) -> dict[str, Any]:
    serving = _serving(spec.name, heard)
    return {
        "name": spec.name,
        "title": spec.title,
        "summary": spec.summary,
        "paper": spec.paper,
        "params": spec.params.model_json_schema(),
        "needs": list(spec.needs),
        "needless": dict(spec.needless),
        "results": list(spec.results),
        "artifacts": list(spec.artifacts),
        "weights": _weights(spec, [entry for _, entry in serving]),
        "available": any(worker.serves(spec.name) for worker, _ in serving),
        "workers": [
            {name: getattr(worker, name) for name in ("id", "state", "device", "precision")} | {"error": entry["error"]}
            for worker, entry in serving
        ],
    }


def _weights(spec: ModelSpec, offers: list[dict[str, Any]]) -> dict[str, Any] | None:
    if spec.weights is None:
        return None
    errors = [offer["error"] for offer in offers]
    said = [STATES.get(error["code"], "unknown") if error else "present" for error in errors]
    announced = next((offer["weights"] for offer in offers if offer["weights"]), None)
    state = next((state for state in ("present", "missing", "corrupt") if state in said), "unknown")
    return {
        "name": spec.weights.name,
        "fingerprint": spec.weights.sha256 or announced,
        "size": spec.weights.size,
        "licence": spec.weights.licence,
        "origin": spec.weights.origin,
        "how": spec.weights.how,
        "state": state,
    }
