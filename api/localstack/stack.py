"""The whole system on one machine, in one folder: Postgres, Valkey, and every process of ours as watched children.

folder/  postgres/ valkey/ files/ weights/ log/ beat/ owner
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Self

import httpx

from api.localstack.servers import Postgres, Valkey, find_free_port
from api.localstack.supervise import LineCallback, SupervisedChild, SupervisedProcess, SupervisedServer
from shared.errors import Conflict
from shared.settings import Settings

API_PORT, FLOWER_PORT = 8000, 5555
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
MAX_FAILURES = 3
"""Failures of a part in a row after which a start, or a demo, is given up."""


class LocalStack:
    """The system, from the first start in an empty folder to the last process gone. Start it from the main thread.

    Args:
        folder: made when missing; one stack at a time.
        port: of the API; when taken, a free one.
        flower_port: of Flower, likewise.
        print_line: takes each line that a person should read.
    """

    def __init__(
        self, folder: Path, print_line: LineCallback, port: int = API_PORT, flower_port: int = FLOWER_PORT
    ) -> None:
        self.folder = folder.resolve()
        self.processes: list[SupervisedProcess] = []
        self._print_line = print_line
        self._requested_ports = port, flower_port
        self._port = self._flower_port = 0
        self._lock_file: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the API and the page are."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def flower_url(self) -> str:
        """Where Flower is."""
        return f"http://127.0.0.1:{self._flower_port}"

    def start(self) -> None:
        """Start everything, in order. Conflict: the folder is in use; ChildProcessError: a part failed."""
        lock_file = self._lock_folder()
        postgres, valkey = self._start_servers()
        self._migrate_database(postgres.url)
        self._port = self._choose_port("The API", self._requested_ports[0])
        self._flower_port = self._choose_port("Flower", self._requested_ports[1])
        lock_file.write(f" (process {os.getpid()}, {self.url})")
        lock_file.flush()
        for child in self._create_children(self._build_environment(postgres.url, valkey.url)):
            self._start_process(child)
        self._wait_until_ready()

    def supervise_processes(self, max_failures: int | None = None) -> None:
        """Look after every part once; call it a few times a second.

        Args:
            max_failures: with it, ChildProcessError when a part has failed so many times in a row.
        """
        for process in self.processes:
            process.restart_if_due(self._print_line)
            if max_failures is not None and process.failures >= max_failures:
                raise ChildProcessError(f"{process.name} does not stay up. {process.read_log_tail()}")

    def stop(self) -> None:
        """Stop everything, the worker first and Postgres last; no process is left."""
        with _ignore_signals():
            for process in self.processes[:1:-1]:  # our own processes hear of it at once, and are waited for in turn
                process.request_stop()
            while self.processes:
                self.processes.pop().stop()
            if self._lock_file is not None:
                self._lock_file.truncate(0)
                self._lock_file.close()
                self._lock_file = None

    def _lock_folder(self) -> IO[str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("files", "log", "beat"):  # films and what is said of them are nobody else's business
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        lock_file = (self.folder / "owner").open("a+")
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock_file.seek(0)
            raise Conflict(f"Sceneworks is already running in {self.folder}{lock_file.read()}.") from None
        lock_file.truncate(0)  # what a stack that was killed had noted
        self._lock_file = lock_file
        return lock_file

    def _start_servers(self) -> tuple[Postgres, Valkey]:
        postgres = Postgres(self.folder / "postgres", log=self.folder / "log" / "postgres.log")
        valkey = Valkey(self.folder / "valkey", log=self.folder / "log" / "valkey.log")
        self._start_process(SupervisedServer(postgres))
        self._start_process(SupervisedServer(valkey))
        return postgres, valkey

    def _start_process(self, process: SupervisedProcess) -> None:
        self.processes.append(process)
        process.start()

    def _migrate_database(self, url: str) -> None:
        from shared.db import migrate

        migrate(url)

    def _choose_port(self, name: str, preferred: int) -> int:
        port = find_free_port(preferred)
        if preferred not in {0, port}:
            self._print_line(f"Port {preferred} is taken: {name} is on {port}.")
        return port

    def _build_environment(self, database_url: str, redis_url: str) -> dict[str, str]:
        """Settings given from outside stand; those that make this stack one system are ours."""
        defaults = {
            "SCENEWORKS_WEIGHTS_DIR": str(self.folder / "weights"),
            "SCENEWORKS_SOFT_SHUTDOWN_S": "3",
        }
        overrides = {
            "SCENEWORKS_DATABASE_URL": database_url,
            "SCENEWORKS_REDIS_URL": redis_url,
            "SCENEWORKS_DATA_DIR": str(self.folder / "files"),
            "SCENEWORKS_HOST": "127.0.0.1",
            "SCENEWORKS_PORT": str(self._port),
            "PYTHONUNBUFFERED": "1",
        }
        return defaults | dict(os.environ) | overrides

    def _create_children(self, env: dict[str, str]) -> Iterator[SupervisedChild]:
        """In the order of their start; they are stopped the other way round."""
        celery = ["celery", "-A", "shared.queue"]
        schedule = str(self.folder / "beat" / "schedule")
        flower = [f"--port={self._flower_port}", "--address=127.0.0.1", "--read_only"]
        yield self._create_child("api", ["gunicorn", "--graceful-timeout=3", *self._build_gunicorn_options()], env)
        yield self._create_child("flower", [*celery, "flower", *flower], env)
        yield self._create_child("beat", [*celery, "beat", "--schedule", schedule, "--pidfile="], env)
        yield self._create_child("scanner", ["worker.scanner"], env)
        yield self._create_child("worker", ["worker.main"], env)

    def _build_gunicorn_options(self) -> list[str]:
        from api.server import gunicorn_options

        options = gunicorn_options(Settings(host="127.0.0.1", port=self._port))
        return [option for option in options if not option.startswith("--graceful-timeout")]

    def _create_child(self, name: str, module: list[str], env: dict[str, str]) -> SupervisedChild:
        return SupervisedChild(
            name, [sys.executable, "-m", *module], env, self.folder / "log" / f"{name}.log", STOP_TIMEOUT_S
        )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while (state := _check_readiness(self.url)) != "ready":
            if time.monotonic() > deadline:
                raise ChildProcessError(
                    f"The API is not ready after {READY_TIMEOUT_S:g} s ({state}). Logs: {self.folder}/log"
                )
            self.supervise_processes(max_failures=MAX_FAILURES)
            time.sleep(0.05)


@contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Make Ctrl-C, `kill` and a closed terminal the same KeyboardInterrupt, also where a shell had them ignored."""
    previous = {number: signal.signal(number, _raise_interrupt) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _ignore_signals() -> Iterator[None]:
    """A second Ctrl-C must not cut the stopping short: it is bounded anyway."""
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _raise_interrupt(number: int, _: FrameType | None) -> None:
    for (
        stop_signal
    ) in STOP_SIGNALS:  # one is enough: make and a terminal both send it, and the second must not cut into the stopping
        signal.signal(stop_signal, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def _check_readiness(url: str) -> str:
    try:
        response = httpx.get(f"{url}/readyz", timeout=5, trust_env=False)
    except httpx.TransportError as error:
        return str(error)
    return "ready" if response.is_success else f"status {response.status_code}"
