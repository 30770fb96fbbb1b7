"""Settings: the prefix, the two customary names, and values that are refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from shared.errors import InvalidRequest
from shared.settings import Settings


def test_the_prefix_and_the_customary_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENEWORKS_SOURCE_ROOTS", "/videos:/more")
    monkeypatch.setenv("DATABASE_URL", "postgres://a/b")
    monkeypatch.setenv("PORT", "1")
    settings = Settings()
    assert (settings.source_roots, settings.database_url, settings.port) == ("/videos:/more", "postgres://a/b", 8000)


def test_the_prefixed_name_of_a_server_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://customary")
    monkeypatch.setenv("SCENEWORKS_REDIS_URL", "redis://prefixed")
    assert Settings().redis_url == "redis://prefixed"


@pytest.mark.parametrize(("name", "value"), [("PORT", "65536"), ("LEASE_S", "0"), ("MAX_ATTEMPTS", "none")])
def test_values_out_of_range_are_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SCENEWORKS_{name}", value)
    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize("name", ["SCENEWORKS_ARCHIVE_ROOTS", "sceneworks_archive_roots"])
def test_a_setting_by_its_old_name_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "/srv/videos")
    with pytest.raises(InvalidRequest, match="SCENEWORKS_ARCHIVE_ROOTS is called SCENEWORKS_SOURCE_ROOTS now"):
        Settings()


def test_source_roots_are_read_by_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENEWORKS_SOURCE_ROOTS", "/srv/videos")
    assert Settings().source_roots == "/srv/videos"
