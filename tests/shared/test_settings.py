from __future__ import annotations

import pytest

from shared.errors import InvalidRequest
from shared.settings import Settings


@pytest.mark.parametrize("name", ["SCENEWORKS_ARCHIVE_ROOTS", "sceneworks_archive_roots"])
def test_a_setting_by_its_old_name_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "/srv/videos")
    with pytest.raises(InvalidRequest, match="SCENEWORKS_ARCHIVE_ROOTS is called SCENEWORKS_SOURCE_ROOTS now"):
        Settings()


def test_source_roots_are_read_by_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENEWORKS_SOURCE_ROOTS", "/srv/videos")
    assert Settings().source_roots == "/srv/videos"
