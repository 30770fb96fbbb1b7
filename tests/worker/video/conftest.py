"""Real videos, each encoded once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.sample_videos import VIDEO_MAKERS


@pytest.fixture(scope="session")
def get_video_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A video by its name in `VIDEO_MAKERS`."""
    folder = tmp_path_factory.mktemp("videos")

    def get_path(name: str) -> Path:
        path = folder / name
        if not path.exists():
            VIDEO_MAKERS[name](path)
        return path

    return get_path
