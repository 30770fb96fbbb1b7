"""The doorbell: messages that wake workers. Rows are the truth; a message is a run's id and nothing more.

Also what beat does: `LedgerScheduler` sweeps the ledger in beat's own process, so that a full queue, a busy worker or a
broker that is down cannot keep dead runs from being found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, ClassVar

import redis
from celery import Celery
from celery.beat import ScheduleEntry, Scheduler
from celery.signals import setup_logging
from kombu.exceptions import OperationalError as BrokerDown
from sqlalchemy.exc import SQLAlchemyError

from shared import log as logs
from shared.catalog import MENU
from shared.db import engine
from shared.files import Files
from shared.settings import Settings, settings
from shared.store import sweep as ledger
from shared.store.archive import batches, schedules
from shared.values import Wake, stamp

RUN_TASK = "sceneworks.run"
SWEEP_TASK = "sceneworks.sweep"
TIDY_TASK = "sceneworks.tidy"
ARCHIVE_TASK = "sceneworks.archive"
MESSAGE_PRIORITIES = {2: 0, 1: 3, 0: 6}
"""The ledger's priority (2 is the most urgent) -> the broker's (0 is the most urgent)."""
PRIORITY_STEPS = [0, 3, 6, 9]
PRIORITY_MARK = "\x06\x16"
SEND_TIMEOUT_S = 2
TIDY_S = 300
KEEP_UNREFERENCED_S = 3600

log = logs.logger(__name__)


def make_app(config: Settings) -> Celery:
    """Celery with the settings of the durability design; each was measured, see shared/README.md."""
    app = Celery("sceneworks", broker=config.redis_url, include=["worker.tasks"])
    app.conf.update(
        accept_content=["json"],
        beat_schedule={
            "sweep": {"task": SWEEP_TASK, "schedule": config.sweep_s},
            "archive": {"task": ARCHIVE_TASK, "schedule": config.sweep_s},
            "tidy": {"task": TIDY_TASK, "schedule": TIDY_S},
        },
        beat_scheduler="shared.queue:LedgerScheduler",
        beat_max_loop_interval=min(config.sweep_s, 5),
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "priority_steps": PRIORITY_STEPS,
            "queue_order_strategy": "priority",
            "socket_timeout": 5,
            "socket_connect_timeout": SEND_TIMEOUT_S,
            "socket_keepalive": True,
        },
        task_acks_late=False,
        task_create_missing_queues=True,
        task_default_queue="unrouted",
        task_ignore_result=True,
        task_queues={name: {"exchange": name, "routing_key": name} for name in MENU},
        task_send_sent_event=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_concurrency=1,
        worker_disable_prefetch=True,
        worker_hijack_root_logger=False,
        worker_pool="prefork",
        worker_pool_start_method="spawn",
        worker_prefetch_multiplier=1,
        worker_proc_alive_timeout=300,
        worker_send_task_events=True,
    )
    return app


app = make_app(settings())


@setup_logging.connect  # type: ignore[untyped-decorator]
def _configure_logs(**_: Any) -> None:
    logs.configure()


def send(wake: Wake) -> bool:
    """Ring once. False when the broker cannot be reached: the row stays queued and the sweep sends it again."""
    try:
        app.send_task(
            RUN_TASK,
            args=[wake.run_id],
            argsrepr=f"run={wake.run_id}, model={wake.model}, video={wake.video_id}",
            queue=wake.model,
            priority=MESSAGE_PRIORITIES[wake.priority],
            retry=False,
            ignore_result=True,
        )
    except (BrokerDown, redis.RedisError, OSError) as error:
        log.warning("message.unsent", run=wake.run_id, model=wake.model, reason=type(error).__name__)
        return False
    return True


def send_all(wakes: Iterable[Wake]) -> bool:
    """Ring for each; stops at the first that fails, since the broker is then down for all."""
    return all(send(wake) for wake in wakes)


def _broker(timeout_s: float = 1) -> redis.Redis:
    return redis.Redis.from_url(settings().redis_url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)


def ping() -> bool:
    """Whether the broker answers within a second."""
    with _broker() as broker:
        try:
            return bool(broker.ping())
        except redis.RedisError:
            return False


def depths() -> dict[str, int]:
    """Messages in the queue of each model, over all priorities."""
    with _broker() as broker, broker.pipeline(transaction=False) as pipe:
        names = list(MENU)
        for name in names:
            for step in PRIORITY_STEPS:
                pipe.llen(f"{name}{PRIORITY_MARK}{step}" if step else name)
        counts = [int(count) for count in pipe.execute()]
    size = len(PRIORITY_STEPS)
    return {name: sum(counts[at * size : (at + 1) * size]) for at, name in enumerate(names)}


def sweep() -> None:
    """Free what lost its worker, then send what is queued and has no message."""
    for freed in ledger.free(engine()):
        log.warning("run.worker_lost", run=freed.run_id, model=freed.model, worker=freed.owner, now=freed.state.value)
    expected = ledger.queued(engine())
    for wake in ledger.due(engine(), depths(), expected, settings().resend_s):
        log.info("run.sent", run=wake.run_id, model=wake.model)
        if not send(wake):
            return


def tend() -> None:
    """Fire the schedules that are due, give the next films of each batch a job, and write down how batches ended."""
    now = datetime.now(UTC)
    for schedule_id in schedules.due(engine(), now):
        for slot in schedules.fire(engine(), schedule_id, now):
            log.info(
                "schedule.due", schedule=slot.schedule_id, due_at=stamp(slot.due_at), batch=slot.batch_id,
                films=slot.films, skipped=slot.reason,
            )  # fmt: skip
    for batch_id in batches.hungry(engine()):
        wakes = batches.feed(engine(), batch_id, datetime.now(UTC), settings().max_attempts)
        if wakes:
            log.info("batch.fed", batch=batch_id, runs=len(wakes))
            send_all(wakes)
    for batch_id in batches.settle(engine()):
        log.info("batch.ended", batch=batch_id)


def tidy() -> None:
    """Remove rows and files that nothing speaks of any more."""
    rows = ledger.tidy(engine())
    files = Files(settings().data_dir)
    removed = ledger.unreferenced(engine(), files.objects(KEEP_UNREFERENCED_S))
    for sha256 in removed:
        files.remove(sha256)
    for path in files.stale_incoming(older_than_s=86_400):
        path.unlink(missing_ok=True)
    log.info("ledger.tidied", rows=rows, files=len(removed))


class LedgerScheduler(Scheduler):  # type: ignore[misc]
    """Beat's scheduler: the sweep runs here and now; only other entries would become messages."""

    _inline: ClassVar[dict[str, Callable[[], None]]] = {SWEEP_TASK: sweep, TIDY_TASK: tidy, ARCHIVE_TASK: tend}

    def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
        """Do one entry that is due. A server that is away is said, and tried again at the next tick."""
        duty = self._inline.get(entry.task)
        if duty is None:
            super().apply_entry(entry, producer)
            return
        try:
            duty()
        except (SQLAlchemyError, redis.RedisError) as error:
            log.warning("sweep.postponed", duty=entry.task, reason=type(error).__name__)
