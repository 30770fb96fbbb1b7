"""The wheel: built from the tracked files, installed beside nothing of the checkout, and used from an empty folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from uuid import uuid4
from zipfile import ZipFile

import pytest
from iscc_samples import videos
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sqlalchemy import Engine

from shared.extras import MODULES
from shared.store import workers
from tests.conftest import execute_admin_sql, with_database_name
from tests.house.repository import ROOT, files, run, text
from tests.support.waiting import wait_until

PACKAGES = ("api", "migrations", "shared", "worker")
INSTALLED = [Path(entry) for entry in sys.path if Path(entry).name == "site-packages"]
"""Where the packages of others are. As lines of a .pth file they are searched, but their own .pth files, the editable
installation of this checkout among them, are not read."""
CLIP = videos("mp4")[0]


@dataclass(frozen=True)
class Installation:
    """A virtual environment with the wheel in it, used from a folder that holds nothing of ours."""

    environment: Path
    folder: Path

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        return next(self.environment.glob("lib/python*/site-packages"))

    def argv(self, *command: str | Path) -> list[str]:
        """A program of this environment with its arguments."""
        return [str(self.environment / "bin" / command[0]), *map(str, command[1:])]

    def variables(self, **settings: str) -> dict[str, str]:
        """The environment of its processes: no path of the checkout, no setting of ours."""
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return inherited | {"SCENEWORKS_DATA_DIR": str(self.folder / "files"), "OMP_WAIT_POLICY": "PASSIVE"} | settings

    def run(self, *command: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a program and wait for it."""
        return subprocess.run(
            self.argv(*command),
            cwd=self.folder,
            env=self.variables(**settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def print(self, code: str, **settings: str) -> str:
        """Standard output of Python code."""
        done = self.run("python", "-c", code, **settings)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built offline by the build backend, from a copy of the files of the repository."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in files():
        if path.parts[0] in {*PACKAGES, "pyproject.toml", "README.md", "LICENSE", "NOTICE"}:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, source / path)
    command = ("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out), ".")
    done = run(sys.executable, *command, cwd=source)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


def install(wheel: Path, folder: Path, *searched: Path) -> Installation:
    """The wheel in a new environment that finds the packages of others in these folders."""
    installation = Installation(folder / "environment", folder / "empty")
    venv.create(installation.environment, symlinks=True)
    installation.folder.mkdir()
    command = ("-m", "pip", "--python", str(installation.environment / "bin" / "python"), "install", "--no-deps")
    done = run(sys.executable, *command, "--no-index", "--no-compile", str(wheel))
    assert done.returncode == 0, done.stdout + done.stderr
    (installation.packages / "others.pth").write_text("".join(f"{path}\n" for path in searched))
    return installation


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """With every extra."""
    return install(wheel, tmp_path_factory.mktemp("installed"), *INSTALLED)


@pytest.fixture(scope="session")
def small(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Without extras: links to the packages of others, those of the extras left out."""
    folder = tmp_path_factory.mktemp("small")
    left_out = {module for modules in MODULES.values() for module in modules}
    (links := folder / "others").mkdir()
    for entry in (entry for packages in INSTALLED for entry in packages.iterdir()):
        if entry.name.partition(".")[0] not in left_out | set(PACKAGES) and not (links / entry.name).exists():
            (links / entry.name).symlink_to(entry)
    return install(wheel, folder, links)


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    name = f"wheel_{uuid4().hex[:12]}"
    execute_admin_sql(postgres_url, f"CREATE DATABASE {name}")
    yield with_database_name(postgres_url, name)
    execute_admin_sql(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    """Modules, templates, scripts, styles, images, vocabularies, revisions and licences, and nothing else."""
    packed = {Path(name) for name in ZipFile(wheel).namelist()}
    ours = {path for path in files() if path.parts[0] in PACKAGES}
    assert {path for path in packed if not path.parts[0].endswith(".dist-info")} == ours
    assert {Path(package, "py.typed") for package in ("api", "shared", "worker")} < packed
    assert {path.name for path in packed if path.parent.name == "licenses"} == {"LICENSE", "NOTICE"}


def test_it_is_imported_from_where_it_was_installed(installed: Installation) -> None:
    code = "import api.app, shared.db, worker.main; print(api.__file__, shared.__file__, worker.__file__)"
    assert installed.print(code).split() == [
        str(installed.packages / name / "__init__.py") for name in ("api", "shared", "worker")
    ]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("sceneworks", r"submit .* demo|demo .* submit"),
        ("sceneworks-worker", r"run .* weights|weights .* run"),
        ("celery -A shared.queue report", "sceneworks"),
    ],
)
def test_its_programs_start(installed: Installation, program: str, words: str) -> None:
    name, *rest = program.split()
    done = installed.run(*(["python", "-m", name, *rest] if rest else [name, "--help"]))
    assert done.returncode == 0, done.stderr
    assert re.search(words, done.stdout, flags=re.DOTALL)


def test_it_migrates_and_is_ready(installed: Installation, empty_database_url: str, broker_url: str) -> None:
    """From an empty database: not ready, then at the newest revision, then ready."""
    servers = {"DATABASE_URL": empty_database_url, "REDIS_URL": broker_url}
    ready = """
import json
from api.app import create_app
from shared.db import get_engine, is_schema_current, migrate
from shared.settings import get_settings
client = create_app().test_client()
before = client.get("/readyz")
migrate(get_settings().database_url)
after = client.get("/readyz")
page = client.get("/")
checks = before.json["checks"]["database"]
print(json.dumps([checks, is_schema_current(get_engine()), after.status_code, after.json, page.text]))
"""
    before, migrated, status, after, page = json.loads(installed.print(ready, **servers).splitlines()[-1])
    assert before == {"reachable": True, "writable": True, "migrated": False}
    assert migrated
    assert (status, after["status"]) == (200, "ready")
    assert "<title>" in page


def test_migrations_of_another_project_do_not_matter(installed: Installation) -> None:
    """A folder `migrations` in the current directory comes first in the search for modules, and is not ours."""
    (theirs := installed.folder / "migrations").mkdir()
    (theirs / "__init__.py").touch()
    code = (
        "from alembic.script import ScriptDirectory; from shared.db import alembic_config;"
        "print(ScriptDirectory.from_config(alembic_config('')).dir)"
    )
    try:
        assert installed.print(code).strip() == str(installed.packages / "migrations")
    finally:
        shutil.rmtree(theirs)


def test_what_belongs_to_an_extra_is_named() -> None:
    """The modules that are looked for are those of the packages that pyproject.toml lists."""
    owners = packages_distributions()
    extras = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]
    for extra, modules in MODULES.items():
        required = {canonicalize_name(Requirement(line).name) for line in extras[extra]}
        looked_for = {canonicalize_name(owner) for module in modules for owner in owners[module]}
        assert looked_for - {"torch"} == required


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (("sceneworks", "demo"), "worker,local"),
        (("sceneworks", "up"), "worker,local"),
        (("sceneworks-worker", "run", str(CLIP), "--model", "shots"), "worker"),
        (("python", "-m", "worker.main"), "worker"),
    ],
)
def test_a_missing_extra_is_named(small: Installation, command: tuple[str, ...], extra: str) -> None:
    done = small.run(*command)
    output = done.stdout + done.stderr
    assert done.returncode in {1, 2}, output
    assert f"pip install 'sceneworks[{extra}]'" in output
    assert "Traceback" not in output


def test_without_extras_the_api_and_the_client_are_there(small: Installation) -> None:
    assert small.run("sceneworks", "--help").returncode == 0
    code = "import api.app, api.client.commands, shared.queue, worker.video.probe; print('there')"
    assert small.print(code).strip() == "there"


@pytest.mark.slow
@pytest.mark.flow
def test_its_worker_serves(
    installed: Installation, database: Engine, database_url: str, broker_url: str, tmp_path: Path
) -> None:
    """Celery's parent starts, its child loads the network from the installed packages, and says that it is ready."""
    servers = {"DATABASE_URL": database_url, "REDIS_URL": broker_url, "SCENEWORKS_MODELS": "shots"}
    log = tmp_path / "worker.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            installed.argv("sceneworks-worker", "serve"),
            cwd=installed.folder,
            env=installed.variables(SCENEWORKS_DEVICE="cpu", **servers),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        wait_until(
            "the worker is ready or has ended",
            lambda: process.poll() is not None or [w for w in workers.list_workers(database) if w.state == "ready"],
        )
        assert [worker.state for worker in workers.list_workers(database)] == ["ready"], log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
@pytest.mark.flow
def test_its_demo_shows_shots(installed: Installation, tmp_path: Path) -> None:
    """Servers, migration, gunicorn, beat, Flower, scanner and worker, all out of the wheel."""
    ports = ("--port", "0", "--flower-port", "0")
    shown = installed.run("sceneworks", "demo", "--dir", tmp_path / "var", *ports, "-p", "detector=hsv_luv")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "succeeded" in shown.stdout
