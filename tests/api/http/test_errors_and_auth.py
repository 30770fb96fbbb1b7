"""API keys, other sites, strict JSON, problem documents, health, and the OpenAPI document with its page."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from openapi_spec_validator import validate
from sqlalchemy import Engine
from sqlalchemy.engine import make_url
from werkzeug.test import TestResponse

from api.http.auth import read_api_keys
from api.http.openapi import flatten_schema_names
from api.http.problems import KEY_COOKIE
from api.http.strict_json import MAX_JSON_BYTES
from api.localstack.servers import find_free_port
from api.server import gunicorn_options
from shared import queue
from shared.errors import InvalidRequest, Unauthorized, errors_by_code
from shared.settings import Settings
from shared.store.jobs import jobs
from tests.api.conftest import REPOSITORY, MakeApp, add_named_video
from tests.conftest import execute_admin_sql, use_broker

KEYS = {"first": hashlib.sha256(b"first").hexdigest(), "second": hashlib.sha256(b"second").hexdigest()}


@pytest.fixture
def guarded(make_app: MakeApp) -> FlaskClient:
    return make_app(api_keys=", ".join(KEYS.values()).upper(), host="0.0.0.0").test_client()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_keys(guarded: FlaskClient) -> None:
    for key in KEYS:
        assert guarded.get("/v1/jobs", headers=bearer(key)).status_code == 200
    for headers in ({}, bearer("third"), bearer(""), bearer(KEYS["first"]), {"Authorization": "Basic first"}):
        answer = guarded.get("/v1/jobs", headers=headers)
        assert (answer.status_code, answer.json["code"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs"):
        assert guarded.get(path).status_code == 200
    assert guarded.get("/nothing").status_code == 401


def test_the_page_brings_its_key_as_a_cookie(guarded: FlaskClient) -> None:
    guarded.set_cookie(KEY_COOKIE, "second")
    assert guarded.get("/v1/jobs").status_code == 200
    guarded.set_cookie(KEY_COOKIE, "third")
    assert guarded.get("/v1/jobs").status_code == 401


def test_uploads_need_a_key(guarded: FlaskClient) -> None:
    data = b"no video"
    assert guarded.post("/v1/videos", data=data).status_code == 401
    answer = guarded.post("/v1/videos", data=data, headers=bearer("first"))
    assert answer.json["code"] == "unsupported_media"


def test_idempotency_keys_belong_to_api_keys(guarded: FlaskClient, database: Engine) -> None:
    """The same Idempotency-Key from another API key is another request: it cannot reach the job of the first."""
    body = {"video_id": add_named_video(database, "a.mp4"), "analyses": [{"model": "shots"}]}

    def create_job(api_key: str) -> TestResponse:
        return guarded.post("/v1/jobs", json=body, headers=bearer(api_key) | {"Idempotency-Key": "one"})

    first, again, other = create_job("first"), create_job("first"), create_job("second")
    assert again.json["id"] == first.json["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert other.status_code == 202
    assert other.json["id"] != first.json["id"]
    assert "Idempotency-Replayed" not in other.headers


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_open_beyond_this_machine_is_refused(host: str) -> None:
    with pytest.raises(Unauthorized, match="SCENEWORKS_API_KEYS"):
        read_api_keys(Settings(host=host))
    assert read_api_keys(Settings(host=host, api_keys=KEYS["first"])) == (KEYS["first"],)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_open_on_this_machine(host: str) -> None:
    assert read_api_keys(Settings(host=host)) == ()
    assert any(option.startswith("--bind=[::1]:" if ":" in host else f"--bind={host}:")
               for option in gunicorn_options(Settings(host=host)))  # fmt: skip


def test_keys_that_are_no_hashes() -> None:
    with pytest.raises(InvalidRequest):
        read_api_keys(Settings(api_keys="secret"))


def test_it_does_not_start_open_to_the_world() -> None:
    with pytest.raises(Unauthorized):
        gunicorn_options(Settings(host="0.0.0.0"))
    env = os.environ | {"SCENEWORKS_HOST": "0.0.0.0"}
    bind = f"--bind=127.0.0.1:{find_free_port()}"
    command = [sys.executable, "-m", "gunicorn", bind, "--no-control-socket", "api.app:create_app()"]
    ended = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, timeout=240)
    assert ended.returncode != 0
    assert b"without keys: set SCENEWORKS_API_KEYS" in ended.stderr


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_other_sites_may_not_write(headers: dict[str, str], client: FlaskClient) -> None:
    answer = client.post("/v1/videos", data=b"x", headers=headers)
    assert (answer.status_code, answer.json["code"]) == (403, "forbidden")


def test_the_own_page_may_write(client: FlaskClient) -> None:
    headers = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/v1/videos", data=b"x", headers=headers).json["code"] == "unsupported_media"


def test_open_is_for_this_machine_only(client: FlaskClient) -> None:
    assert client.get("/v1/jobs", environ_overrides={"REMOTE_ADDR": "10.0.0.7"}).json["code"] == "forbidden"
    assert client.get("/v1/jobs", headers={"Host": "rebound.example:8000"}).json["code"] == "forbidden"
    assert client.get("/v1/jobs", headers={"Host": "127.0.0.1:8000"}).status_code == 200
    assert client.get("/v1/jobs", headers={"Host": "[::1]:8000"}).status_code == 200


BAD_BODIES: dict[str, bytes] = {
    "not json": b"{",
    "empty": b"",
    "nan": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "too large a number": b'{"a": 1e999}',
    "too long a number": b'{"a": ' + b"9" * 5000 + b"}",
    "twice": b'{"video_id": "a", "video_id": "b"}',
    "not utf-8": b'{"a": "\xff"}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "nul": rb'{"video_id": "a\u0000", "analyses": []}',
    "nul in a name": rb'{"a\u0000": 1}',
    "half a pair": rb'{"video_id": "\ud800", "analyses": []}',
    "deep": b"[" * 100_000,
    "deep but whole": b'{"a":' * 40 + b"1" + b"}" * 40,
    "a list": b"[]",
    "a text": b'"x"',
    "null": b"null",
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_strict_json(name: str, client: FlaskClient) -> None:
    answer = client.post("/v1/jobs", data=BAD_BODIES[name], content_type="application/json")
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_request"), answer.json
    assert answer.mimetype == "application/problem+json"


def test_json_of_another_type(client: FlaskClient) -> None:
    for kind in ("text/plain", "", "application/x-www-form-urlencoded"):
        answer = client.post("/v1/jobs", data=b"{}", content_type=kind)
        assert (answer.status_code, answer.json["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("length_known", [True, False])
def test_ten_megabytes_of_json(length_known: bool, client: FlaskClient) -> None:
    body = json.dumps({"video_id": "x" * 10_000_000}).encode()
    chunked = {} if length_known else {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = client.post(
        "/v1/jobs", data=body, content_type="application/json", environ_overrides=chunked,
        content_length=len(body) if length_known else None,
    )  # fmt: skip
    assert (answer.status_code, answer.json["status"], answer.json["code"]) == (413, 413, "invalid_request")
    assert str(MAX_JSON_BYTES) in answer.json["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/jobs/" + "x" * 5000, 404, "not_found"),
        ("GET", "/v1/jobs/%00", 400, "invalid_request"),
        ("GET", "/v1/jobs?external_id=%00", 400, "invalid_request"),
        ("GET", "/v1/jobs?%00=a", 400, "invalid_request"),
        ("GET", "/v1/jobs/..%2f..%2fetc", 404, "not_found"),
        ("PUT", "/v1/jobs", 405, "invalid_request"),
        ("GET", "/v1/jobs/job_1/cancel", 405, "invalid_request"),
        ("PUT", "/", 405, "invalid_request"),
    ],
)
def test_every_refusal_is_a_problem(method: str, path: str, status: int, code: str, client: FlaskClient) -> None:
    answer = client.open(path, method=method, headers={"X-Request-Id": "mine-1"})
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    problem = answer.json
    assert (problem["status"], problem["code"], problem["request_id"]) == (status, code, "mine-1")
    assert set(problem) >= {"type", "title", "status", "code", "detail", "instance", "request_id", "retryable"}
    assert answer.headers["X-Request-Id"] == "mine-1"
    assert ("Allow" in answer.headers) == (status == 405)


def test_request_ids(client: FlaskClient) -> None:
    for sent in ("", "x" * 129, "a b", 'a"b'):
        given = client.get("/healthz", headers={"X-Request-Id": sent}).headers["X-Request-Id"]
        assert given.startswith("req_")


def test_security_headers(client: FlaskClient) -> None:
    for path in ("/healthz", "/nothing", "/docs"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in headers


def test_the_database_away(make_app: MakeApp, capfd: pytest.CaptureFixture[str]) -> None:
    client = make_app(database_url=f"postgresql://nobody:secret@127.0.0.1:{find_free_port()}/none").test_client()
    answer = client.get("/v1/jobs")
    assert (answer.status_code, answer.json["code"], answer.json["retryable"]) == (503, "internal", True)
    assert int(answer.headers["Retry-After"]) > 0
    assert "127.0.0.1" not in answer.text
    assert "secret" not in answer.text + capfd.readouterr().err
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json["checks"]["database"]["reachable"]) == (503, False)
    assert client.get("/healthz").json == {"status": "ok"}


def test_a_bug_says_nothing_about_itself(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> str:
        raise RuntimeError("the secret path /var/secret")

    app = make_app()
    app.add_url_rule("/broken", "broken", broken)
    answer = app.test_client().get("/broken", headers={"X-Request-Id": "bug-1"})
    assert (answer.status_code, answer.json["code"], answer.json["request_id"]) == (500, "internal", "bug-1")
    assert "secret" not in answer.text
    logged = [entry for entry in caplog.records if entry.levelname == "ERROR"]
    assert "the secret path" in logged[0].getMessage()
    assert "bug-1" in logged[0].getMessage()
    caplog.clear()  # this one error was wanted


def test_ready(client: FlaskClient) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json["status"] == "ready"
    assert answer.json["database"] == {"reachable": True, "writable": True, "migrated": True}
    assert answer.json["broker"] == {"reachable": True}
    assert answer.json["storage"]["free_bytes"] > 0


def test_ready_without_a_broker(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{find_free_port()}/0")
    queue.get_settings.cache_clear()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["broker"]) == (200, {"reachable": False})


def test_not_ready_before_the_migrations(make_app: MakeApp, postgres_url: str) -> None:
    answer = make_app(database_url=postgres_url).test_client().get("/readyz")
    assert (answer.status_code, answer.json["retryable"]) == (503, True)
    assert answer.json["checks"]["database"] == {"reachable": True, "writable": True, "migrated": False}


def test_not_ready_while_the_database_is_read_only(make_app: MakeApp, database_url: str) -> None:
    name = make_url(database_url).database
    execute_admin_sql(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    answer = make_app().test_client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json["checks"]["database"] == {"reachable": True, "writable": False, "migrated": True}


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json
    return found


def test_openapi_is_valid_and_whole(app: APIFlask, document: dict[str, Any]) -> None:
    validate(document)
    assert document["openapi"].startswith("3.1")
    served = {
        (rule.rule.replace("<path:", "<").replace("<", "{").replace(">", "}"), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/v1") or rule.rule in {"/healthz", "/readyz", "/metrics"}
    }
    documented = {(path, method) for path, found in document["paths"].items() for method in found}
    assert documented == served


def test_openapi_tells_errors_security_and_parameters(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["Problem"]["properties"]["code"]["enum"] == sorted(errors_by_code())
    assert schemas["AnalysisBody"]["oneOf"][0]["properties"] == {
        "model": {"const": "shots"}, "params": {"$ref": "#/components/schemas/ShotsParams"}, "range": {"type": "null"},
    }  # fmt: skip
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation.get("security", document["security"]) == (
                [] if path in {"/healthz", "/readyz", "/metrics"} else [{"key": []}, {"cookie": []}]
            )
            assert operation["tags"][0] in {tag["name"] for tag in document["tags"]}
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert list(response["content"]) == ["application/problem+json"]
    create = document["paths"]["/v1/jobs"]["post"]
    assert {"Idempotency-Key", "validate_only"} == {parameter["name"] for parameter in create["parameters"]}
    assert "`weights_missing`" in create["responses"]["503"]["description"]


def test_openapi_loses_no_schema() -> None:
    refs = [{"$ref": "#/components/schemas/JobPage.RunRecord"}, {"$ref": "#/components/schemas/BatchPage.RunRecord"}]
    same = {"JobPage.RunRecord": {"type": "object"}, "BatchPage.RunRecord": {"type": "object"}}
    document = flatten_schema_names({"refs": refs, "components": {"schemas": same}})
    assert document == {
        "refs": [{"$ref": "#/components/schemas/RunRecord"}] * 2,
        "components": {"schemas": {"RunRecord": {"type": "object"}}},
    }
    different = same | {"BatchPage.RunRecord": {"type": "string"}}
    with pytest.raises(ValueError, match="two different schemas are called RunRecord"):
        flatten_schema_names({"components": {"schemas": different}})


def test_docs_need_no_network(client: FlaskClient) -> None:
    page = client.get("/docs")
    assert "http://" not in page.text
    assert "https://" not in page.text
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-32x32.png"):
        assert f"/docs/{name}" in page.text
        with client.get(f"/docs/{name}") as asset:
            assert asset.status_code == 200
    assert client.get("/docs/none.js").status_code == 404


def test_importing_the_api_is_light() -> None:
    heavy = "'torch', 'numpy', 'av', 'cv2', 'decord', 'transformers'"
    script = f"import sys, api.app; print([name for name in ({heavy}) if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_refused_job_is_not_in_the_ledger(client: FlaskClient) -> None:
    use_broker(f"redis://127.0.0.1:{find_free_port()}/0")
    assert client.post("/v1/jobs", json={"video_id": "vid_no", "analyses": [{"model": "shots"}]}).status_code == 404
    engine = client.application.extensions["sceneworks"].engine
    assert jobs.count_unfinished_runs(engine) == 0


def test_nothing_of_the_source_is_served(client: FlaskClient) -> None:
    for path in ("/app.py", "/api/app.py", "/static/app.py", "/..%2fpyproject.toml", "/.env"):
        assert client.get(path).status_code == 404
    assert "static" not in client.application.view_functions
