"""`/metrics`: the ledger in numbers, for Prometheus. Read from the rows at each scrape; this process keeps none.

What is read from rows is a gauge, finished runs too, as rows may be deleted. What leaves no row is a counter, kept in
the ledger and raised in the transaction of the event, so it survives every process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from apiflask import APIBlueprint
from flask import Response, request
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from api.errors import open_to_all
from api.service.health import Services, services
from shared.catalog import MENU
from shared.store import workers
from shared.store.archive import figures
from shared.store.archive.figures import Figures
from shared.store.views import PRIORITIES
from shared.values import Worker

bp = APIBlueprint("metrics", __name__, tag="Health")

ANSWERS: dict[int | str, Any] = {
    200: {
        "description": "In the text format of Prometheus, or in OpenMetrics where that is asked for.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}
Samples = Iterable[tuple[Sequence[str], float]]
"""Values of the labels, and a number."""


@bp.get("/metrics")
@open_to_all
@bp.doc(responses=ANSWERS)
def metrics() -> Response:
    """Queues, runs, stages, workers, jobs, batches, schedules and the disk in numbers, for Prometheus.

    Like `/healthz` it asks for no key. It names models, devices, error codes and ids of schedules: no film, no label.
    """
    encode, media_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(Ledger(services())), content_type=media_type)


class Ledger:
    """Collects the figures of this moment; made for one scrape."""

    def __init__(self, service: Services) -> None:
        self._figures = figures.read(service.engine)
        self._workers = workers.all(service.engine)
        self._free = service.files.free()

    def collect(self) -> Iterator[Metric]:
        """Every metric, with its samples."""
        yield from _of_queues(self._figures)
        yield from _of_runs(self._figures)
        yield from _of_workers(self._workers)
        told = self._figures
        yield _gauge("jobs", "Jobs by state.", ["state"], [((state,), count) for state, count in told.jobs.items()])
        batches = [((state,), count) for state, count in told.batches.items()]
        yield _gauge("batches", "Batches by state.", ["state"], batches)
        due = "Seconds until the next slot of a schedule that is not paused; less than 0 when it is late."
        slots = [((schedule,), seconds) for schedule, seconds in told.next_s.items()]
        yield _gauge("schedule_next_seconds", due, ["schedule"], slots)
        yield _gauge("disk_free_bytes", "Bytes free on the disk of the files.", [], [((), self._free)])


def _of_queues(told: Figures) -> Iterator[Metric]:
    labels = ["model", "priority"]
    empty = {(model, priority): 0 for model in MENU for priority in PRIORITIES}
    yield _gauge("queue_depth", "Runs that are queued.", labels, (empty | dict(told.depths)).items())
    oldest = "Seconds since the oldest queued run was made."
    yield _gauge("queue_oldest_seconds", oldest, labels, told.oldest_s.items())


def _of_runs(told: Figures) -> Iterator[Metric]:
    runs = "Runs in the ledger by state; those that failed by code as well."
    yield _gauge("runs", runs, ["model", "state", "code"], told.runs.items())
    rate = "Units a second of a stage, over the runs at work and those done in the last hour."
    yield _gauge("stage_units_per_second", rate, ["model", "stage", "unit"], told.per_second.items())
    lost = "Claims of workers that fell silent."
    yield _counter("leases_lost", lost, told, figures.LEASES_LOST, {"model": list(MENU)})
    dropped = "Messages that started no run; where it ran or had ended they were duplicates."
    named = {"model": list(MENU), "reason": list(figures.REASONS)}
    yield _counter("messages_dropped", dropped, told, figures.MESSAGES_DROPPED, named)
    late = "Runs that were finished by a worker after another had been given them; what they yield was dropped."
    yield _counter("results_dropped", late, told, figures.RESULTS_DROPPED, {"model": list(MENU)})


def _of_workers(heard: Sequence[Worker]) -> Iterator[Metric]:
    states = Counter((worker.state if worker.live else "silent", worker.device) for worker in heard)
    yield _gauge(
        "workers", "Workers heard of in the last day; silent: not lately.", ["state", "device"], states.items()
    )
    serving: Counter[tuple[str, str]] = Counter({(model, ""): 0 for model in MENU})
    for worker in heard:
        if worker.live:
            serving.update((offer["model"], (offer["error"] or {}).get("code", "")) for offer in worker.models)
    served = "Live workers that serve a model; with a code: that cannot, and why."
    yield _gauge("model_workers", served, ["model", "code"], serving.items())


def _gauge(name: str, what: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(f"sceneworks_{name}", what, labels=labels)
    for values, number in sorted(samples):
        family.add_metric(values, number)
    return family


def _counter(name: str, what: str, told: Figures, kept: str, known: Mapping[str, Sequence[str]]) -> Metric:
    """A counter that starts at 0 for all that is known to be counted, so that the first event is seen to raise it."""
    samples: Counter[tuple[str, ...]] = Counter()
    for (event, labels), count in told.counted.items():
        if event == kept:
            samples[tuple(dict(labels)[label] for label in known)] += count
    family = CounterMetricFamily(f"sceneworks_{name}", what, labels=list(known))
    for values in sorted({*product(*known.values()), *samples}):
        family.add_metric(values, samples[values])
    return family
