"""`sceneworks-worker weights` for a model with files beside its tensors, and for a folder as a hub delivers it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from typer.testing import CliRunner, Result

from shared.catalog import CATALOG
from shared.settings import get_settings
from tests.support.tiny_model import IMPORTED_AT, STATE, TOKENIZER_FILES, WITH_TOKENIZER, save_zip
from worker.cli import app
from worker.models.r2plus1d.weights import WEIGHTS_MANIFEST as R2PLUS1D
from worker.weights import compute_fingerprint, import_weights

SPEC = CATALOG["mttr"].weights
assert SPEC is not None
MTTR = replace(WITH_TOKENIZER, spec=SPEC)
"""The tiny network, under the name of a model with a tokenizer: neither command looks into the tensors."""


def weights(folder: Path, *arguments: str | Path) -> Result:
    get_settings.cache_clear()
    try:
        return CliRunner(env={"SCENEWORKS_WEIGHTS_DIR": str(folder)}).invoke(app, ["weights", *map(str, arguments)])
    finally:
        get_settings.cache_clear()


def delivered(folder: Path) -> list[Path]:
    folder.mkdir()
    save_zip(STATE, folder / "tiny.pt")
    for name, data in TOKENIZER_FILES.items():
        (folder / name).write_bytes(data)
    return list(folder.iterdir())


def test_files_beside_the_tensors_are_listed_and_verified(tmp_path: Path) -> None:
    card = import_weights(MTTR, delivered(tmp_path / "model"), tmp_path / "weights", IMPORTED_AT)
    whole = compute_fingerprint(MTTR.spec, (tmp_path / "weights",))
    for command in ("list", "verify"):
        said = weights(tmp_path / "weights", command).stdout
        assert f"mttr.safetensors  present  sha256 {whole}" in said
        for side in card.sides:
            assert f"  {side.name}  present  sha256 {side.sha256}\n" in said


def test_one_that_is_missing_or_another_is_named(tmp_path: Path) -> None:
    import_weights(MTTR, delivered(tmp_path / "model"), tmp_path / "weights", IMPORTED_AT)
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
    state = {key: torch.zeros(()).expand(shape) for key, shape in R2PLUS1D.expected_shapes().items()}
    torch.save(state, tmp_path / "model/pytorch_model.pt")
    (tmp_path / "model/configuration.json").write_text("{}")
    done = weights(tmp_path / "weights", "import", "r2plus1d", tmp_path / "model")
    assert (done.exit_code, done.stderr) == (0, "")
    card = json.loads((tmp_path / "weights/r2plus1d.json").read_text())
    assert f"r2plus1d.safetensors  {card['weights']['size']} bytes  sha256 {card['weights']['sha256']}" in done.stdout
    assert f"  from pytorch_model.pt  {card['sources'][0]['size']} bytes" in done.stdout


def test_a_folder_that_lacks_a_file_says_which(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    save_zip(STATE, tmp_path / "model/pytorch_model.pt")
    done = weights(tmp_path / "weights", "import", "mttr", tmp_path / "model")
    assert done.exit_code == 2
    lacking = "transformer_cfg_dir/vocab.json, no transformer_cfg_dir/merges.txt"
    assert f"invalid_request: The folder model holds no {lacking}" in done.stderr
    assert "mttr.safetensors  missing  Apache-2.0" in weights(tmp_path / "weights", "list").stdout
