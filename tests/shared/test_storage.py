from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from shared.errors import StorageFull
from shared.storage import ContentStorage


def test_a_file_lies_under_its_hash(files: ContentStorage, tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(os.urandom(3 << 20))
    stored = files.put_file(source)
    assert stored.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert files.object_path(stored.sha256).read_bytes() == source.read_bytes()
    assert files.list_stale_incoming(-1) == []


def test_the_same_bytes_again_are_the_same_file(files: ContentStorage, tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(b"film")
    assert files.put_file(source) == files.put_file(source)
    assert list(files.list_hashes(-1)) == [hashlib.sha256(b"film").hexdigest()]


def test_nothing_is_left_of_a_write_that_failed(files: ContentStorage) -> None:
    def dropped() -> object:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError), files.open_incoming() as path:
        files.write_chunks(path, dropped())  # type: ignore[arg-type]
    assert files.list_stale_incoming(-1) == []
    assert list(files.list_hashes(-1)) == []


def test_a_full_disk_is_said(files: ContentStorage) -> None:
    with pytest.raises(StorageFull), files.open_incoming():
        files.write_chunks(Path("/dev/full"), [b"x" * (1 << 20)])


def test_fresh_files_are_not_offered_for_removal(files: ContentStorage, tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(b"film")
    stored = files.put_file(source)
    assert list(files.list_hashes(older_than_s=60)) == []
    old = time.time() - 120
    os.utime(files.object_path(stored.sha256), (old, old))
    assert list(files.list_hashes(older_than_s=60)) == [stored.sha256]
    files.put_file(source)  # put again: young again
    assert list(files.list_hashes(older_than_s=60)) == []
    files.remove_file(stored.sha256)
    files.remove_file(stored.sha256)
    assert not files.object_path(stored.sha256).exists()
