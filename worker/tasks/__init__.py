"""The Celery side of a worker: one task, whose message is the id of a run.

The pool's parent imports this too. It holds no model, so everything that imports torch is imported in the child only.
"""

from __future__ import annotations

from typing import Any

from celery.signals import worker_process_init

from shared.queue import RUN_TASK, app


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _setup_child(**_: Any) -> None:
    """Load the models in a new pool child, before it takes a message."""
    from worker.tasks.host import get_host

    get_host().start_serving()


@app.task(name=RUN_TASK)  # type: ignore[untyped-decorator]
def run_task(run_id: str) -> None:
    """Process one run."""
    from worker.tasks.host import get_host
    from worker.tasks.run import process_run

    process_run(get_host(), run_id)
