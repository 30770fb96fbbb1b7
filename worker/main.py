"""Start a worker: a Celery parent process without a model, and one pool child that holds the model.

The parent never touches a device. The child is spawned, not forked, because CUDA cannot be used in a forked process.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

from celery.exceptions import SecurityWarning
from celery.signals import worker_shutdown, worker_shutting_down
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared import log as logs
from shared.catalog import parse_model_names
from shared.db import get_engine
from shared.errors import ModelUnavailable, SceneworksError
from shared.extras import ExtraMissing, require_extras
from shared.queue import app
from shared.settings import get_settings
from shared.store import workers
from worker.tasks.identity import assign_worker_id, get_worker_id

log = logs.get_logger(__name__)


def main() -> None:
    """Serve the models of SCENEWORKS_MODELS until stopped; exit code 2 if the settings cannot be met."""
    logs.configure_logging()
    try:
        model_names = parse_model_names(get_settings().models)
        require_extras("worker")
        _refuse_missing_device(get_settings().device)
    except SceneworksError as error:
        log.critical("worker.refused", code=error.code, detail=error.detail)
        sys.exit(2)
    except ExtraMissing as error:
        log.critical("worker.refused", detail=str(error))
        sys.exit(2)
    worker_id = assign_worker_id(model_names)
    warnings.filterwarnings("ignore", category=SecurityWarning)  # root is no danger where only JSON is taken
    app.worker_main(
        [
            "worker",
            f"--queues={','.join(model_names)}",
            f"--hostname={worker_id}",
            f"--loglevel={get_settings().log_level}",
            # Workers learn everything from the database: they need no events from each other, and no slow start-up
            # that waits for replies of others.
            "--without-gossip",
            "--without-mingle",
        ]
    )


def _refuse_missing_device(device: str) -> None:
    """Check in a child process that the device can be used: the parent must not initialise CUDA."""
    if device in {"auto", "cpu"}:
        return
    check_script = (
        "import sys; from worker.runtime.placement import resolve_placement; "
        "resolve_placement(sys.argv[1], 'auto', 'torch', 1)"
    )
    completed = subprocess.run(
        [sys.executable, "-c", check_script, device], capture_output=True, text=True, check=False
    )
    if completed.returncode:
        raise ModelUnavailable(f"The device {device!r} was requested and cannot be used.")


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _request_child_stop(**_: Any) -> None:
    """Warm shutdown: the child returns its run to the queue at its next progress report; the parent waits for it."""
    _update_worker(workers.request_stop)


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _forget_worker(**_: Any) -> None:
    _update_worker(workers.delete_worker)


def _update_worker(update: Callable[[Engine, str], None]) -> None:
    try:
        update(get_engine(), get_worker_id())
    except SQLAlchemyError as error:
        # The row then says so itself: a worker without a heartbeat counts as lost.
        log.warning("worker.heartbeat_failed", reason=type(error).__name__)


if __name__ == "__main__":
    main()
