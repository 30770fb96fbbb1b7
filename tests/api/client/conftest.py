"""A scripted server and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.client.http import ApiClient
from tests.api.client.scripted_server import ScriptedServer, serve_replies


@pytest.fixture
def scripted_server() -> Iterator[ScriptedServer]:
    with serve_replies() as server:
        yield server


@pytest.fixture
def api_client(scripted_server: ScriptedServer) -> Iterator[ApiClient]:
    with ApiClient(f"{scripted_server.url}/", "the key") as client:
        yield client
