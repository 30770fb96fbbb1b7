"""The worker's boot: a Celery parent that holds no model, and one pool child that holds it.

The parent never touches a device. The child is spawned, not forked, so that CUDA can be used in it.
"""

from __future__ import annotations

import os
import socket
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

log = logs.get_logger(__name__)
WORKER_ID_ENV = "_SCENEWORKS_WORKER_ID"
"""Environment variable by which the parent names the worker to its children."""


def main() -> None:
    """Serve the models of SCENEWORKS_MODELS until told to stop; exit 2 when the settings cannot be met."""
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
    worker_id = f"{'-'.join(model_names)}-{os.getpid()}@{socket.gethostname()}"
    os.environ[WORKER_ID_ENV] = worker_id
    warnings.filterwarnings("ignore", category=SecurityWarning)  # root is no danger where only JSON is taken
    app.worker_main(
        [
            "worker",
            f"--queues={','.join(model_names)}",
            f"--hostname={worker_id}",
            f"--loglevel={get_settings().log_level}",
            "--without-gossip",
            "--without-mingle",
        ]
    )


def _refuse_missing_device(device: str) -> None:
    """Ask a process of its own whether the GPU is there: a parent that touched CUDA could not spawn clean children."""
    if device in {"auto", "cpu"}:
        return
    check_script = "import sys; from worker.runtime.placement import place; place(sys.argv[1], 'auto', 'torch', 1)"
    completed = subprocess.run(
        [sys.executable, "-c", check_script, device], capture_output=True, text=True, check=False
    )
    if completed.returncode:
        raise ModelUnavailable(f"The device {device!r} was asked for and cannot be used.")


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _request_child_stop(**_: Any) -> None:
    """A polite stop: the child hands its run back at its next sign of progress, and the parent waits for it."""
    _update_worker(workers.request_stop)


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _forget_worker(**_: Any) -> None:
    _update_worker(workers.delete_worker)


def _update_worker(update: Callable[[Engine, str], None]) -> None:
    try:
        update(get_engine(), os.environ[WORKER_ID_ENV])
    except SQLAlchemyError as error:
        log.warning("worker.unheard", reason=type(error).__name__)


if __name__ == "__main__":
    main()
