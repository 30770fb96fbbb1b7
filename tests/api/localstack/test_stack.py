"""`sceneworks up` and `sceneworks demo` as a person starts them: real processes, killed and stopped in every way."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.localstack.demo import find_sample_clip
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[3]
COMMAND = [
    sys.executable,
    "-P",
    "-c",  # -P: as the installed command, it does not import from the working folder
    "from api.client.commands import main; main()",
]
ADDRESS = re.compile(r"Sceneworks is up: (http://127\.0\.0\.1:\d+)/ .* Flower (http://127\.0\.0\.1:\d+)/")

pytestmark = pytest.mark.flow


@dataclass(slots=True)
class System:
    """A running `sceneworks up`."""

    process: subprocess.Popen[str]
    folder: Path
    url: str
    flower_url: str
    output: Path

    def read_output(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def sceneworks(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return sceneworks("--url", self.url, *arguments)


def build_environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}


def sceneworks(*arguments: str | Path, timeout: float = 120, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=REPOSITORY,
        env=build_environment() | variables,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
        check=False,
    )


def start_system(folder: Path, output: Path, cwd: Path = REPOSITORY, **variables: str) -> System:
    """Start the system on free ports and wait until it prints its addresses."""
    with output.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [*COMMAND, "up", "--dir", str(folder), "--port", "0", "--flower-port", "0"],
            cwd=cwd,
            env=build_environment() | variables,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    wait_until(
        "the system says where it is",
        lambda: process.poll() is not None or ADDRESS.search(_read_joined(output)) is not None,
    )
    found = ADDRESS.search(_read_joined(output))
    assert found, output.read_text(encoding="utf-8")
    return System(process, folder, found[1], found[2], output)


def _read_joined(output: Path) -> str:
    return output.read_text(encoding="utf-8").replace("\n", " ")


def find_processes(folder: Path) -> dict[int, str]:
    """Command lines of the living processes that belong to the system in a folder, by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            variables = (entry / "environ").read_bytes().decode(errors="replace")
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue  # it ended while we looked, or is somebody else's
        if line and (str(folder) in line or f"={folder}/" in variables):
            found[int(entry.name)] = line
    return found


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("system")
    system = start_system(folder / "var", folder / "output")
    yield system
    system.process.send_signal(signal.SIGINT)
    assert system.process.wait(45) == 0, system.read_output()
    assert find_processes(system.folder) == {}


@pytest.fixture(scope="module")
def job(system: System) -> dict[str, Any]:
    """A job of the model `shots` that has succeeded, as `submit --wait --json` prints it."""
    done = system.sceneworks("submit", find_sample_clip(), "-m", "shots", "-p", "detector=hsv_luv", "--wait", "--json")
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def test_pages_answer_at_the_printed_addresses(system: System) -> None:
    with httpx.Client(trust_env=False, timeout=20) as http:
        assert "<title>" in http.get(f"{system.url}/").text
        assert "swagger" in http.get(f"{system.url}/docs").text
        assert "Flower" in http.get(f"{system.flower_url}/").text


def test_servers_listen_on_loopback_alone(system: System) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): nothing is sent, only a route is chosen
        own = probe.getsockname()[0]
    for url in (system.url, system.flower_url):
        port = int(url.rpartition(":")[2])
        with socket.socket() as trial:
            trial.settimeout(2)
            assert own == "127.0.0.1" or trial.connect_ex((own, port)) != 0


def test_a_second_start_in_the_same_folder_is_refused(system: System) -> None:
    second = sceneworks("up", "--dir", system.folder)
    assert second.returncode == 2
    assert "already running" in second.stderr
    assert system.url in second.stderr
    assert str(system.process.pid) in second.stderr
    assert ready(system.url)


def test_submit_and_wait_gives_the_job_with_its_stages(job: dict[str, Any]) -> None:
    assert job["state"] == "succeeded"
    (run,) = job["runs"]
    assert run["params"]["detector"] == "hsv_luv"
    assert {stage["state"] for stage in run["stages"]} == {"done"}


def test_results_are_equal_in_every_format(system: System, job: dict[str, Any]) -> None:
    def results(form: str) -> str:
        done = system.sceneworks("results", job["id"], "--format", form)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shots = json.loads(results("json"))
    assert len(shots) > 3
    assert [json.loads(line) for line in results("jsonl").splitlines()] == shots
    rows = list(csv.DictReader(io.StringIO(results("csv"))))
    assert [int(row["end_frame"]) for row in rows] == [shot["end"]["frame"] for shot in shots]
    assert [float(row["start_seconds"]) for row in rows] == [shot["start"]["seconds"] for shot in shots]
    table = results("table")
    for shot in shots:
        assert shot["start"]["timecode"] in table
    assert [shot["start"]["frame"] for shot in shots[1:]] == [shot["end"]["frame"] for shot in shots[:-1]]


def test_jobs_are_listed_shown_and_watched(system: System, job: dict[str, Any]) -> None:
    assert job["id"] in system.sceneworks("jobs").stdout
    assert job["id"] in [entry["id"] for entry in json.loads(system.sceneworks("jobs", "--json").stdout)]
    assert "encode done" in system.sceneworks("show", job["id"]).stdout
    watched = system.sceneworks("watch", job["id"])
    assert (watched.returncode, watched.stdout.split()) == (0, [job["id"], "succeeded"])
    assert "detector" in system.sceneworks("models").stdout


def test_refusals_have_their_code(system: System, job: dict[str, Any], tmp_path: Path) -> None:
    text = tmp_path / "video.mp4"
    text.write_text("not a video", encoding="utf-8")
    asked = [
        (["submit", text, "-m", "shots"], "unsupported_media"),
        (["submit", find_sample_clip(), "-m", "shot"], "unknown_model|/analyses/0/model"),
        (["submit", find_sample_clip(), "-m", "shots", "-p", "treshold=0.4"], "/analyses/0/params/treshold"),
        (["submit", find_sample_clip(), "-m", "shots", "-p", "threshold"], "NAME=VALUE"),
        (["show", "job_none"], "not_found"),
        (["cancel", job["id"]], "conflict"),
        (["retry", job["id"]], "conflict"),
    ]
    for arguments, words in asked:
        refused = system.sceneworks(*arguments)
        assert refused.returncode == 2, (arguments, refused.stdout, refused.stderr)
        assert re.search(words, refused.stderr), (arguments, refused.stderr)
        assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("api", "-m gunicorn"),
        ("worker", "-m worker.main"),
        ("Postgres", "bin/postgres"),
        ("Valkey", "valkey-server"),
        ("flower", "shared.queue flower"),
        ("beat", "shared.queue beat"),
        ("scanner", "-m worker.scanner"),
    ],
)
def test_a_killed_process_is_restarted(system: System, name: str, words: str) -> None:
    before = {pid for pid, line in find_processes(system.folder).items() if words in line}
    assert before
    os.kill(min(before), signal.SIGKILL)
    wait_until(f"{name} comes back", lambda: f"{name} was started again." in system.read_output())
    assert f"{name} ended by itself; starting it again in 1 s." in system.read_output()
    wait_until("the system is ready", lambda: ready(system.url))
    assert {pid for pid, line in find_processes(system.folder).items() if words in line} - before


def test_folders_of_the_caller_do_not_shadow_our_packages(tmp_path: Path) -> None:
    """Settings with relative paths still mean the folder of the caller."""
    caller = tmp_path / "caller"
    for name in ("api", "shared", "worker"):
        (caller / name).mkdir(parents=True)
        (caller / name / "__init__.py").write_text("raise ImportError('a package of the caller')", encoding="utf-8")
    system = start_system(tmp_path / "var", tmp_path / "output", cwd=caller, SCENEWORKS_WEIGHTS_DIR="own-weights")
    try:
        for words in ("-m gunicorn", "-m celery", "-m worker.scanner", "-m worker.main"):
            pid = min(pid for pid, line in find_processes(system.folder).items() if words in line)
            assert Path(f"/proc/{pid}/cwd").resolve() == system.folder, words
            settings = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
            assert f"SCENEWORKS_WEIGHTS_DIR={caller}/own-weights" in settings
        assert "ended by itself" not in system.read_output()
    finally:
        system.process.send_signal(signal.SIGTERM)
        assert system.process.wait(45) == 0, system.read_output()


def test_stopped_killed_and_started_again_it_has_its_jobs_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "var"
    first = start_system(folder, tmp_path / "first")
    done = first.sceneworks("submit", find_sample_clip(), "-m", "shots", "-p", "detector=hsv_luv", "--wait", "--json")
    assert done.returncode == 0, done.stderr
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(45) == 0
    assert find_processes(folder) == {}

    second = start_system(folder, tmp_path / "second")
    assert json.loads(done.stdout)["id"] in second.sceneworks("jobs").stdout
    second.process.kill()
    second.process.wait()
    wait_until("every process is gone", lambda: find_processes(folder) == {})

    began = time.monotonic()
    third = start_system(folder, tmp_path / "third")
    assert time.monotonic() - began < 20
    assert json.loads(done.stdout)["id"] in third.sceneworks("jobs").stdout
    third.process.send_signal(signal.SIGHUP)
    assert third.process.wait(45) == 0
    assert find_processes(folder) == {}


def test_the_demo_shows_the_shots_and_stops_everything(tmp_path: Path) -> None:
    arguments = ["demo", "--dir", str(tmp_path / "var"), "--port", "0", "--flower-port", "0", "-p", "detector=hsv_luv"]
    shown = sceneworks(*arguments)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "succeeded" in shown.stdout
    assert re.search(r"shots encode: \d+/\d+ frames", shown.stdout)
    assert re.search(r"shots +│ shot +│ 0 +│ +0 +│ +\d+ +│ 00:00:00[:;.]", shown.stdout), shown.stdout
    assert re.search(r"Page +http", shown.stdout)
    assert find_processes(tmp_path / "var") == {}

    text = tmp_path / "video.mp4"
    text.write_text("not a video", encoding="utf-8")
    refused = sceneworks(*arguments, text)
    assert refused.returncode == 2
    assert "unsupported_media" in refused.stderr
    assert find_processes(tmp_path / "var") == {}

    output, status = run_in_terminal([*COMMAND, *arguments], until_output="Ctrl-C stops it.")
    assert "reused from an earlier run" in output
    assert status == 0, output
    assert find_processes(tmp_path / "var") == {}


def run_in_terminal(argv: list[str], until_output: str) -> tuple[str, int]:
    """Run a command in a terminal of its own, press Ctrl-C at the given words; what was on the screen, exit status."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(REPOSITORY)
        os.execve(argv[0], argv, build_environment() | {"TERM": "xterm", "COLUMNS": "200"})
    seen = b""
    deadline = time.monotonic() + 90
    pressed = False
    while time.monotonic() < deadline:
        try:
            seen += os.read(terminal, 65_536)
        except OSError:  # Linux says EIO once the last process has closed its end
            break
        if not pressed and until_output.encode() in seen:
            os.write(terminal, b"\x03")
            pressed = True
    os.close(terminal)
    assert pressed, seen.decode(errors="replace")
    return seen.decode(errors="replace"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_demo_whose_worker_cannot_start_ends_with_the_reason(tmp_path: Path) -> None:
    arguments = ["demo", "--dir", str(tmp_path / "var"), "--port", "0", "--flower-port", "0"]
    done = sceneworks(*arguments, SCENEWORKS_DEVICE="cuda:99")
    assert done.returncode == 1
    assert "worker does not stay up" in done.stderr
    assert "cuda:99" in done.stderr
    assert find_processes(tmp_path / "var") == {}
