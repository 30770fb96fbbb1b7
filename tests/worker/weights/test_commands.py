"""`sceneworks-worker weights` for a room with files beside its tensors, and for a folder as a hub delivers it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from typer.testing import CliRunner, Result

from shared.catalog import MENU
from shared.settings import settings
from tests.worker.weights.tiny import AT, SPEAKS, STATE, WORDS, zipped
from worker.cli import app
from worker.encoders.published import fingerprint, import_weights
from worker.models.r2plus1d.weights import PUBLISHED as R2PLUS1D

SPEC = MENU["mttr"].weights
assert SPEC is not None
MTTR = replace(SPEAKS, spec=SPEC)
"""The tiny network, under the name of a room with a tokenizer: neither command looks into the tensors."""


def weights(folder: Path, *arguments: str | Path) -> Result:
    settings.cache_clear()
    try:
        return CliRunner(env={"SCENEWORKS_WEIGHTS_DIR": str(folder)}).invoke(app, ["weights", *map(str, arguments)])
    finally:
        settings.cache_clear()


def delivered(folder: Path) -> list[Path]:
    folder.mkdir()
    zipped(STATE, folder / "tiny.pt")
    for name, data in WORDS.items():
        (folder / name).write_bytes(data)
    return list(folder.iterdir())


def test_files_beside_the_tensors_are_listed_and_verified(tmp_path: Path) -> None:
    card = import_weights(MTTR, delivered(tmp_path / "model"), tmp_path / "weights", AT)
    whole = fingerprint(MTTR.spec, (tmp_path / "weights",))
    for command in ("list", "verify"):
        said = weights(tmp_path / "weights", command).stdout
        assert f"mttr.safetensors  present  sha256 {whole}" in said
        for side in card.sides:
            assert f"  {side.name}  present  sha256 {side.sha256}\n" in said


def test_one_that_is_missing_or_another_is_named(tmp_path: Path) -> None:
    import_weights(MTTR, delivered(tmp_path / "model"), tmp_path / "weights", AT)
    (tmp_path / "weights/mttr.merges.txt").unlink()
    assert "  mttr.merges.txt  missing  sha256 " in weights(tmp_path / "weights", "list").stdout
    verified = weights(tmp_path / "weights", "verify")
    assert verified.exit_code == 1
    assert "mttr.safetensors  weights_missing: The weights file mttr.merges.txt is not there" in verified.stdout
    (tmp_path / "weights/mttr.merges.txt").write_bytes(b"other")
    assert "weights_corrupt: mttr.merges.txt is not the file" in weights(tmp_path / "weights", "verify").stdout


def test_a_folder_is_imported(tmp_path: Path) -> None:
    """Zeros in the shapes of R(2+1)D, as its folder comes."""
    (tmp_path / "model").mkdir()
    state = {key: torch.zeros(()).expand(shape) for key, shape in R2PLUS1D.expected().items()}
    torch.save(state, tmp_path / "model/pytorch_model.pt")
    (tmp_path / "model/configuration.json").write_text("{}")
    done = weights(tmp_path / "weights", "import", "r2plus1d", tmp_path / "model")
    assert (done.exit_code, done.stderr) == (0, "")
    card = json.loads((tmp_path / "weights/r2plus1d.json").read_text())
    assert f"r2plus1d.safetensors  {card['weights']['size']} bytes  sha256 {card['weights']['sha256']}" in done.stdout
    assert f"  from pytorch_model.pt  {card['sources'][0]['size']} bytes" in done.stdout


def test_a_folder_that_lacks_a_file_says_which(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    zipped(STATE, tmp_path / "model/pytorch_model.pt")
    done = weights(tmp_path / "weights", "import", "mttr", tmp_path / "model")
    assert done.exit_code == 2
    lacking = "transformer_cfg_dir/vocab.json, no transformer_cfg_dir/merges.txt"
    assert f"invalid_request: The folder model holds no {lacking}" in done.stderr
    assert "mttr.safetensors  missing  Apache-2.0" in weights(tmp_path / "weights", "list").stdout
