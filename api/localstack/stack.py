"""The whole system on one machine, in one folder: Postgres, Valkey, and each of our processes, supervised.

folder/  postgres/ valkey/ files/ weights/ log/ beat/ owner
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Self

import httpx

from api.localstack.errors import FolderInUse
from api.localstack.servers import Postgres, Valkey, find_free_port
from api.localstack.supervise import LineCallback, SupervisedChild, SupervisedProcess, SupervisedServer
from shared.settings import Settings

API_PORT, FLOWER_PORT = 8000, 5555
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
PATH_VARIABLES = ("SCENEWORKS_WEIGHTS_DIR",)
PACKAGES_FOLDER = Path(__file__).resolve().parents[2]
MAX_FAILURES = 3
"""Failures of one process in a row after which a start, or a demo, gives up."""


class LocalStack:
    """The system, from the first start in an empty folder to the last process gone. Start it from the main thread.

    Args:
        folder: created when missing; one stack at a time.
        port: of the API; when taken, a free one.
        flower_port: of Flower, likewise.
        print_line: called with each line that a person should read.
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
        """Address of the API and its pages."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def flower_url(self) -> str:
        """Address of Flower."""
        return f"http://127.0.0.1:{self._flower_port}"

    def start(self) -> None:
        """Start everything, in order. FolderInUse: another stack runs here; ChildProcessError: a process failed."""
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
        """Check every process once, and restart those that ended; call it a few times a second.

        Args:
            max_failures: ChildProcessError when a process has failed so many times in a row; None: never.
        """
        for process in self.processes:
            process.restart_if_due(self._print_line)
            if max_failures is not None and process.failures >= max_failures:
                raise ChildProcessError(f"{process.name} does not stay up. {process.read_log_tail()}")

    def stop(self) -> None:
        """Stop everything, the worker first and Postgres last; no process is left."""
        with _ignore_signals():
            for process in self.processes[:1:-1]:  # our own processes end side by side, and are waited for in turn
                process.request_stop()
            while self.processes:
                self.processes.pop().stop()
            if self._lock_file is not None:
                self._lock_file.truncate(0)
                self._lock_file.close()
                self._lock_file = None

    def _lock_folder(self) -> IO[str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("files", "log", "beat"):  # other users of the machine must not read videos and logs
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        lock_file = (self.folder / "owner").open("a+")
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock_file.seek(0)
            raise FolderInUse(f"Sceneworks is already running in {self.folder}{lock_file.read()}.") from None
        lock_file.truncate(0)  # the note of a stack that was killed
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
        """Build the environment of our processes.

        Settings from outside stay, except the addresses and folders that make this stack one system. The processes run
        in another folder, so paths relative to the present one are made absolute.
        """
        defaults = {
            "SCENEWORKS_WEIGHTS_DIR": str(self.folder / "weights"),
        }
        overrides = {
            "SCENEWORKS_DATABASE_URL": database_url,
            "SCENEWORKS_REDIS_URL": redis_url,
            "SCENEWORKS_DATA_DIR": str(self.folder / "files"),
            "SCENEWORKS_HOST": "127.0.0.1",
            "SCENEWORKS_PORT": str(self._port),
            "PYTHONUNBUFFERED": "1",
        }
        return defaults | dict(os.environ) | _resolve_paths() | overrides

    def _create_children(self, env: dict[str, str]) -> Iterator[SupervisedChild]:
        """Create our processes in the order of their start; they are stopped in reverse."""
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
        # Python, Celery and gunicorn all import from the working folder first: in the caller's, a folder of the caller
        # that is called `api`, `shared` or `worker` would take the place of ours.
        argv, log = [sys.executable, "-m", *module], self.folder / "log" / f"{name}.log"
        return SupervisedChild(name, argv, env, self.folder, log, STOP_TIMEOUT_S)

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
    """Turn Ctrl-C, `kill` and a closed terminal into KeyboardInterrupt, even where the shell had them ignored."""
    previous = {number: signal.signal(number, _raise_interrupt) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _ignore_signals() -> Iterator[None]:
    """Ignore signals: a second Ctrl-C must not interrupt the stopping, which ends in bounded time anyway."""
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _raise_interrupt(number: int, _: FrameType | None) -> None:
    # make and the terminal may both send it: the second must not interrupt the stopping that the first began.
    for stop_signal in STOP_SIGNALS:
        signal.signal(stop_signal, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def _resolve_paths() -> dict[str, str]:
    """Return the variables that hold paths, these made absolute, and PYTHONPATH with the folder of our packages."""
    variables = {name: str(Path(os.environ[name]).resolve()) for name in PATH_VARIABLES if os.environ.get(name)}
    entries = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if Path(sysconfig.get_path("purelib")) != PACKAGES_FOLDER:  # a checkout, which is not on the path by itself
        entries.insert(0, str(PACKAGES_FOLDER))
    return variables | ({"PYTHONPATH": os.pathsep.join(entries)} if entries else {})


def _check_readiness(url: str) -> str:
    try:
        response = httpx.get(f"{url}/readyz", timeout=5, trust_env=False)
    except httpx.TransportError as error:
        return str(error)
    return "ready" if response.is_success else f"status {response.status_code}"
