"""Build the command line of gunicorn from the settings."""

from __future__ import annotations

from pathlib import Path

from api.http.auth import read_api_keys
from api.http.context import STREAMS, THREADS
from shared.settings import Settings

MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 (gunicorn makes its own file in it, unlinked at once)


def gunicorn_options(settings: Settings) -> list[str]:
    """List the options of gunicorn, with the app.

    Raises what `create_app` raises, before a socket is opened.
    """
    read_api_keys(settings)
    # Threads and not processes: most requests wait for Postgres or copy bytes. `timeout` is that of the worker's own
    # loop and not of a request: an upload may take hours, and `api.videos` ends a stalled one itself.
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    options = {
        "worker-class": "gthread",
        "workers": "1",
        "threads": str(THREADS + STREAMS),
        "bind": f"{host}:{settings.port}",
        "timeout": "60",
        "graceful-timeout": "30",
        "keep-alive": "15",
    }
    # The heartbeat file lies in memory where there is such a folder: on a slow disk a busy worker would look dead.
    if MEMORY_FOLDER.is_dir():
        options["worker-tmp-dir"] = str(MEMORY_FOLDER)
    return [*(f"--{name}={value}" for name, value in options.items()), "--no-control-socket", "api.app:create_app()"]
