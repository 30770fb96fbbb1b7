"""`/metrics`: the database in numbers, for Prometheus. Read from the rows at each scrape; this process keeps none.

What is read from rows is a gauge, finished runs too, as rows may be deleted. What leaves no row is a counter, kept in
the database and raised in the transaction of the event, so it survives every process.
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

from api.http.context import Services, get_services
from api.http.problems import allow_anonymous
from shared.catalog import CATALOG
from shared.store import counters, workers
from shared.store.operations import metrics
from shared.store.operations.metrics import StoreMetrics
from shared.values import Worker
from shared.values.jobs import PRIORITIES

bp = APIBlueprint("metrics", __name__, tag="Health")

METRICS_DOC: dict[int | str, Any] = {
    200: {
        "description": "In the text format of Prometheus, or in OpenMetrics where that is requested.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}
Samples = Iterable[tuple[Sequence[str], float]]
"""Values of the labels, and a number."""


@bp.get("/metrics")
@allow_anonymous
@bp.doc(responses=METRICS_DOC)
def show_metrics() -> Response:
    """Queues, runs, stages, workers, jobs, batches, schedules and the disk in numbers, for Prometheus.

    Like `/healthz` it needs no key. It names models, devices, error codes and ids of schedules: no video, no label.
    """
    encode, media_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(MetricsCollector(get_services())), content_type=media_type)


class MetricsCollector:
    """Collects the present figures; one object for each scrape."""

    def __init__(self, service: Services) -> None:
        self._figures = metrics.read_metrics(service.engine)
        self._workers = workers.list_workers(service.engine)
        self._free = service.files.free_bytes()

    def collect(self) -> Iterator[Metric]:
        """Every metric, with its samples."""
        yield from _collect_queue_metrics(self._figures)
        yield from _collect_run_metrics(self._figures)
        yield from _collect_worker_metrics(self._workers)
        snapshot = self._figures
        yield _build_gauge(
            "jobs", "Jobs by state.", ["state"], [((state,), count) for state, count in snapshot.jobs.items()]
        )
        batches = [((state,), count) for state, count in snapshot.batches.items()]
        yield _build_gauge("batches", "Batches by state.", ["state"], batches)
        due = "Seconds until the next slot of a schedule that is not paused; less than 0 when it is late."
        slots = [((schedule,), seconds) for schedule, seconds in snapshot.next_s.items()]
        yield _build_gauge("schedule_next_seconds", due, ["schedule"], slots)
        yield _build_gauge("disk_free_bytes", "Bytes free on the disk of the files.", [], [((), self._free)])


def _collect_queue_metrics(snapshot: StoreMetrics) -> Iterator[Metric]:
    labels = ["model", "priority"]
    empty = {(model, priority): 0 for model in CATALOG for priority in PRIORITIES}
    yield _build_gauge("queue_depth", "Runs that are queued.", labels, (empty | dict(snapshot.depths)).items())
    oldest = "Seconds since the oldest queued run was created."
    yield _build_gauge("queue_oldest_seconds", oldest, labels, snapshot.oldest_s.items())


def _collect_run_metrics(snapshot: StoreMetrics) -> Iterator[Metric]:
    runs = "Runs in the database by state; those that failed by code as well."
    yield _build_gauge("runs", runs, ["model", "state", "code"], snapshot.runs.items())
    rate = "Units a second of a stage, over the runs at work and those done in the last hour."
    yield _build_gauge("stage_units_per_second", rate, ["model", "stage", "unit"], snapshot.per_second.items())
    lost = "Claims of workers that stopped sending heartbeats."
    yield _build_counter("leases_lost", lost, snapshot, counters.LEASES_LOST, {"model": list(CATALOG)})
    dropped = "Messages that started no run; where it ran or had ended they were duplicates."
    named = {"model": list(CATALOG), "reason": list(counters.DROP_REASONS)}
    yield _build_counter("messages_dropped", dropped, snapshot, counters.MESSAGES_DROPPED, named)
    late = "Runs that were finished by a worker after another had been given them; what they yield was dropped."
    yield _build_counter("results_dropped", late, snapshot, counters.RESULTS_DROPPED, {"model": list(CATALOG)})


def _collect_worker_metrics(known_workers: Sequence[Worker]) -> Iterator[Metric]:
    states = Counter((worker.state if worker.live else "silent", worker.device) for worker in known_workers)
    yield _build_gauge(
        "workers", "Workers heard of in the last day; silent: not lately.", ["state", "device"], states.items()
    )
    serving: Counter[tuple[str, str]] = Counter({(model, ""): 0 for model in CATALOG})
    for worker in known_workers:
        if worker.live:
            serving.update(
                (offer["model"], offer["error"]["code"] if offer["error"] else "") for offer in worker.models
            )
    served = "Live workers that serve a model; with a code: that cannot, and why."
    yield _build_gauge("model_workers", served, ["model", "code"], serving.items())


def _build_gauge(name: str, description: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(f"sceneworks_{name}", description, labels=labels)
    for values, number in sorted(samples):
        family.add_metric(values, number)
    return family


def _build_counter(
    name: str, description: str, snapshot: StoreMetrics, counter_name: str, label_values: Mapping[str, Sequence[str]]
) -> Metric:
    """Build a counter that starts at 0 for all known labels."""
    # Prometheus sees no increase in a series that begins at 1: the first event would be lost in every rate.
    samples: Counter[tuple[str, ...]] = Counter()
    for (event, labels), count in snapshot.counters.items():
        if event == counter_name:
            samples[tuple(dict(labels)[label] for label in label_values)] += count
    family = CounterMetricFamily(f"sceneworks_{name}", description, labels=list(label_values))
    for values in sorted({*product(*label_values.values()), *samples}):
        family.add_metric(values, samples[values])
    return family
