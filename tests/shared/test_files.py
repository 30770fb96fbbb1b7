from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from shared.errors import StorageFull
from shared.files import Files


def test_a_file_lies_under_its_hash(files: Files, tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(os.urandom(3 << 20))
    stored = files.put(source)
    assert stored.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert files.path(stored.sha256).read_bytes() == source.read_bytes()
    assert files.stale_incoming(-1) == []


def test_the_same_bytes_again_are_the_same_file(files: Files, tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(b"film")
    assert files.put(source) == files.put(source)
    assert list(files.objects(-1)) == [hashlib.sha256(b"film").hexdigest()]


def test_nothing_is_left_of_a_write_that_failed(files: Files) -> None:
    def dropped() -> object:
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError), files.incoming() as path:
        files.write(path, dropped())  # type: ignore[arg-type]
    assert files.stale_incoming(-1) == []
    assert list(files.objects(-1)) == []


def test_a_full_disk_is_said(files: Files) -> None:
    with pytest.raises(StorageFull), files.incoming():
        files.write(Path("/dev/full"), [b"x" * (1 << 20)])


def test_fresh_files_are_not_offered_for_removal(files: Files, tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(b"film")
    stored = files.put(source)
    assert list(files.objects(older_than_s=60)) == []
    old = time.time() - 120
    os.utime(files.path(stored.sha256), (old, old))
    assert list(files.objects(older_than_s=60)) == [stored.sha256]
    files.put(source)  # put again: young again
    assert list(files.objects(older_than_s=60)) == []
    files.remove(stored.sha256)
    files.remove(stored.sha256)
    assert not files.path(stored.sha256).exists()
