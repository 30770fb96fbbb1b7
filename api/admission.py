"""Whether work may be accepted now: the only place that decides it.

There are three checks: the backlog has room, a live worker can run the models, and no queue that the work would fill is
being drained. Which of them apply depends on the kind of work; each function says which it leaves out, and why.
Anything that is accepted is stored and waits for a worker; a refusal can be sent again later.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from api.http.context import get_services
from shared.catalog import CATALOG, ModelSpec
from shared.errors import ModelUnavailable, SceneworksError, WeightsCorrupt, WeightsMissing
from shared.store import workers
from shared.store.jobs.planner import Analysis, expand_needs
from shared.store.runs import queues
from shared.values import Worker
from shared.values.workers import ModelOffer

WEIGHTS_ERRORS: dict[str, type[SceneworksError]] = {
    WeightsMissing.code: WeightsMissing,
    WeightsCorrupt.code: WeightsCorrupt,
}
"""Errors that a worker announces for a model and that reach the caller unchanged."""


def admit_job(analyses: Sequence[Analysis]) -> None:
    """Check that a job with these analyses may be created now.

    Raises:
        ModelUnavailable: the backlog is full, every live worker of a model refuses it, or a queue is being drained.
        WeightsMissing, WeightsCorrupt: the reason of the workers.
    """
    get_services().backlog.check_capacity()
    _check_models_served(analyses)
    _check_queues_open({analysis.model for analysis, _ in expand_needs(analyses)})


def admit_batch(analyses: Sequence[Analysis]) -> None:
    """Check that a batch with these analyses may start now; raises what `admit_job` raises."""
    # The backlog is not checked: a batch adds no runs when it is created. Its jobs are created later, no more at once
    # than its cap allows.
    _check_models_served(analyses)
    _check_queues_open({analysis.model for analysis, _ in expand_needs(analyses)})


def admit_plan(analyses: Sequence[Analysis]) -> None:
    """Check what starts later or not at all (a schedule, a dry run); raises what `admit_job` raises."""
    # Neither backlog nor drained queues matter: both say something about this moment only. A model that no worker can
    # run is refused all the same, so that nobody saves a schedule whose every batch would fail.
    _check_models_served(analyses)


def admit_retry(models: Collection[str]) -> None:
    """Check that runs of these models, which were accepted before, may be queued again.

    Raises:
        ModelUnavailable: the backlog is full, or a queue is being drained.
    """
    # Whether a worker serves the models is not checked: an operator who has just repaired the weights retries before
    # the workers announce it. Needs are not expanded: those that are done stay done.
    get_services().backlog.check_capacity()
    _check_queues_open(models)


def list_model_offers(model: str, known_workers: Sequence[Worker]) -> list[tuple[Worker, ModelOffer]]:
    """Live workers with the entry of the model that each announces."""
    live_workers = [worker for worker in known_workers if worker.live]
    return [(worker, entry) for worker in live_workers for entry in worker.models if entry["model"] == model]


def _check_models_served(analyses: Sequence[Analysis]) -> None:
    """Refuse models that every live worker says it cannot run; where no worker is live, work is accepted and waits."""
    known_workers = workers.list_workers(get_services().engine)
    for analysis in analyses:
        spec = CATALOG[analysis.model]
        _check_model_served(spec, spec.weights_for(analysis.params) is not None, known_workers)
        for need in spec.needs_for(analysis.params):
            _check_model_served(CATALOG[need], CATALOG[need].weights is not None, known_workers)


def _check_model_served(spec: ModelSpec, needs_weights: bool, known_workers: Sequence[Worker]) -> None:
    offers = [offer for _, offer in list_model_offers(spec.name, known_workers)]
    errors = [offer["error"] for offer in offers if offer["error"]]
    if not errors or len(errors) < len(offers):
        return
    error_class = WEIGHTS_ERRORS.get(errors[0]["code"], ModelUnavailable)
    # Some parameters need no weights at all: then missing weights are no reason to refuse.
    if needs_weights or error_class is ModelUnavailable:
        detail = f"No worker can run {spec.name}: {errors[0]['detail']}"
        if spec.weights and error_class is WeightsMissing and spec.weights.how not in detail:
            detail += f" To get them: {spec.weights.how}"
        raise error_class(detail)


def _check_queues_open(models: Collection[str]) -> None:
    draining = queues.list_draining_models(get_services().engine, models)
    if draining:
        raise ModelUnavailable(f"The queue of {', '.join(draining)} is being drained: no new work until it is open.")
