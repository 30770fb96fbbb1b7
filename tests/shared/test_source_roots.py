"""Paths of sources: inside one of the configured folders, with every link resolved."""

from __future__ import annotations

from pathlib import Path

from shared.source_roots import parse_roots, resolve_within


def test_roots_are_absolute_and_resolved(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert parse_roots(f" {tmp_path}/link : relative ::{tmp_path}/b") == (tmp_path.resolve(), tmp_path.resolve() / "b")
    assert parse_roots("") == ()


def test_a_path_inside_a_root_is_resolved(tmp_path: Path) -> None:
    roots = (tmp_path / "videos",)
    roots[0].mkdir()
    inside = roots[0] / "a" / ".." / "b.mp4"
    assert resolve_within(inside, roots) == (roots[0] / "b.mp4").resolve()
    assert resolve_within(roots[0], roots) == roots[0].resolve()


def test_a_path_that_leads_out_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    (root / "circle").symlink_to(root / "circle")
    for path in (root / ".." / "c.mp4", root / "out" / "c.mp4", tmp_path / "videos-too", root / "circle" / "d.mp4"):
        assert resolve_within(path, (root,)) is None
    assert resolve_within(root, ()) is None
