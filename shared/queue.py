"""Messages that wake workers. Rows are the truth; a message is a run's id and nothing more.

Beat does not send messages to itself: `shared.beat.InlineScheduler` sweeps the database in beat's own process, so that
a full queue, a busy worker or a broker that is down cannot keep dead runs from being found.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis
from celery import Celery
from celery.signals import setup_logging
from kombu.exceptions import OperationalError as BrokerDown

from shared import log as logs
from shared.catalog import CATALOG
from shared.settings import Settings, get_settings
from shared.values import WakeUp

RUN_TASK = "sceneworks.run"
SWEEP_TASK = "sceneworks.sweep"
TIDY_TASK = "sceneworks.tidy"
SCHEDULES_TASK = "sceneworks.schedules"
MESSAGE_PRIORITIES = {2: 0, 1: 3, 0: 6}
"""The database's priority (2 is the most urgent) -> the broker's (0 is the most urgent)."""
PRIORITY_STEPS = [0, 3, 6, 9]
PRIORITY_MARK = "\x06\x16"
SEND_TIMEOUT_S = 2
TIDY_EVERY_S = 300
UNREFERENCED_GRACE_S = 3600

log = logs.get_logger(__name__)


def create_celery_app(config: Settings) -> Celery:
    """Celery with the settings of the durability design; each was measured, see shared/README.md."""
    app = Celery("sceneworks", broker=config.redis_url, include=["worker.tasks"])
    app.conf.update(
        accept_content=["json"],
        beat_schedule={
            "sweep": {"task": SWEEP_TASK, "schedule": config.sweep_s},
            "schedules": {"task": SCHEDULES_TASK, "schedule": config.sweep_s},
            "tidy": {"task": TIDY_TASK, "schedule": TIDY_EVERY_S},
        },
        beat_scheduler="shared.beat:InlineScheduler",
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
        task_queues={name: {"exchange": name, "routing_key": name} for name in CATALOG},
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


app = create_celery_app(get_settings())


@setup_logging.connect  # type: ignore[untyped-decorator]
def _configure_logs(**_: Any) -> None:
    logs.configure_logging()


def publish_wakeup(wakeup: WakeUp) -> bool:
    """Send one message. False when the broker cannot be reached: the row stays queued and the sweep sends it again."""
    try:
        app.send_task(
            RUN_TASK,
            args=[wakeup.run_id],
            argsrepr=f"run={wakeup.run_id}, model={wakeup.model}, video={wakeup.video_id}",
            queue=wakeup.model,
            priority=MESSAGE_PRIORITIES[wakeup.priority],
            retry=False,
            ignore_result=True,
        )
    except (BrokerDown, redis.RedisError, OSError) as error:
        log.warning("message.unsent", run=wakeup.run_id, model=wakeup.model, reason=type(error).__name__)
        return False
    return True


def publish_wakeups(wakeups: Iterable[WakeUp]) -> bool:
    """Send messages; stops at the first that fails, since the broker is then down for all."""
    return all(publish_wakeup(wakeup) for wakeup in wakeups)


def _connect_broker(timeout_s: float = 1) -> redis.Redis:
    return redis.Redis.from_url(get_settings().redis_url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)


def ping_broker() -> bool:
    """Whether the broker answers within a second."""
    with _connect_broker() as broker:
        try:
            return bool(broker.ping())
        except redis.RedisError:
            return False


def read_queue_depths() -> dict[str, int]:
    """Messages in the queue of each model, over all priorities."""
    with _connect_broker() as broker, broker.pipeline(transaction=False) as pipe:
        names = list(CATALOG)
        for name in names:
            for step in PRIORITY_STEPS:
                pipe.llen(f"{name}{PRIORITY_MARK}{step}" if step else name)
        counts = [int(count) for count in pipe.execute()]
    size = len(PRIORITY_STEPS)
    return {name: sum(counts[at * size : (at + 1) * size]) for at, name in enumerate(names)}
