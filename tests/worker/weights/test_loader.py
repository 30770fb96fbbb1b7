"""What a model may say of its published files: wrappers, parts of networks, constants, files beside the tensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shared.errors import InvalidRequest, SceneworksError, WeightsCorrupt, WeightsMissing
from tests.support.tiny_model import (
    EXPECTED,
    IMPORTED_AT,
    ONE_FILE,
    STATE,
    TOKENIZER_FILES,
    WITH_TOKENIZER,
    StateDict,
    equal_states,
    save_zip,
)
from worker.weights import (
    TensorFile,
    WeightsCard,
    WeightsManifest,
    compute_fingerprint,
    find_side_files,
    import_weights,
    load_imported,
    verify_imported,
)

TUNED = replace(ONE_FILE, tensor_files=(TensorFile("tiny.pt", "everything", wrapper_prefix="model."),))
PART = replace(
    ONE_FILE,
    tensor_files=(
        TensorFile("epoch_1.pth", "pre-training", submodule_marker="rgb_backbone.", drop_patterns=("*.fc.*",)),
    ),
)
ORDER, TABLE, COUNT = torch.arange(6)[None], torch.linspace(-1, 1, 8), torch.empty((), device="meta")
FIXED = replace(
    ONE_FILE, make_constants=lambda: {"encoder.order": ORDER, "encoder.table": TABLE, "encoder.count": COUNT}
)


def under(prefix: str, state: StateDict = STATE) -> StateDict:
    return {prefix + key: value for key, value in state.items()}


def took(published: WeightsManifest, payload: Any, tmp_path: Path) -> StateDict:
    """The weights that come of a file."""
    save_zip(payload, tmp_path / "tiny.pt")
    import_weights(published, [tmp_path / "tiny.pt"], tmp_path / "weights", IMPORTED_AT)
    return load_imported(published.spec, (tmp_path / "weights",), EXPECTED)


def refused(published: WeightsManifest, payload: Any, tmp_path: Path) -> str:
    with pytest.raises(WeightsCorrupt) as caught:
        took(published, payload, tmp_path)
    assert not (tmp_path / "weights").exists()
    return caught.value.detail


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [STATE, under("model."), under("module.model."), {"state_dict": under("model.")}, {"params": under("module.")}],
    ids=["as published", "fine-tuned", "in parallel", "trainer's", "params"],
)
def test_a_wrapper_is_taken_off_where_there_is_one(payload: Any, tmp_path: Path) -> None:
    assert equal_states(took(TUNED, payload, tmp_path), STATE)


def test_a_wrapper_stays_where_not_all_names_have_it_or_the_network_has_it_itself(tmp_path: Path) -> None:
    some = {("model." if "boundary" in key else "") + key: value for key, value in STATE.items()}
    assert "2 unknown (model.boundary.bias, model.boundary.weight)" in refused(TUNED, some, tmp_path)
    assert "unknown (model.boundary.bias, " in refused(ONE_FILE, under("model."), tmp_path)
    own = replace(TUNED, expected_shapes=lambda: {f"model.{key}": shape for key, shape in EXPECTED.items()})
    save_zip(under("model."), tmp_path / "own.pt")
    import_weights(own, [tmp_path / "own.pt"], tmp_path / "weights", IMPORTED_AT)
    assert (
        load_imported(own.spec, (tmp_path / "weights",), own.expected_shapes()).keys() == own.expected_shapes().keys()
    )


def test_a_part_of_a_larger_network_is_taken_alone(tmp_path: Path) -> None:
    larger = under("rgb_backbone.") | {"rgb_backbone.head.fc.bias": torch.ones(2), "mq_head.0.weight": torch.ones(3)}
    for payload in (larger, under("module.", larger), under("net.", larger), STATE):
        assert equal_states(took(PART, payload, tmp_path), STATE)


def test_what_a_part_lacks_is_named(tmp_path: Path) -> None:
    larger = under("rgb_backbone.", {key: value for key, value in STATE.items() if key != "boundary.bias"})
    assert "1 missing (boundary.bias)" in refused(PART, larger | {"boundary.bias": STATE["boundary.bias"]}, tmp_path)


def test_a_checkpoint_of_training_is_read_past_its_optimiser(tmp_path: Path) -> None:
    """As the authors of MTTR keep it."""
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    payload = {
        "epoch": 20,
        "total_epochs": 30,
        "model_state_dict": STATE,
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": torch.optim.lr_scheduler.MultiStepLR(optimizer, [20]).state_dict(),
        "grad_scaler_state_dict": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 0},
    }
    for best in ({"best_mAP": np.float64(0.4)}, {"best_loss": 0.3}, {"best_mAP": torch.tensor(0.4)}):
        assert equal_states(took(ONE_FILE, payload | best, tmp_path), STATE)


@pytest.mark.parametrize("payload", [{"params": {"lr": 1.0}}, {"params": {"lr": 1.0}, "epoch": torch.ones(1)}])
def test_settings_are_no_state_dict(payload: Any, tmp_path: Path) -> None:
    assert "something other than tensors by name" in refused(ONE_FILE, payload, tmp_path)


def test_settings_beside_a_state_dict_are_passed_over(tmp_path: Path) -> None:
    assert equal_states(took(ONE_FILE, {"params": {"lr": 1.0}, "state_dict": STATE}, tmp_path), STATE)


# Constants ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "held",
    [
        {},
        {"encoder.order": ORDER, "encoder.table": TABLE, "encoder.count": torch.tensor(7)},
        {"encoder.order": ORDER.int(), "encoder.table": TABLE.half()},
        {"encoder.table": TABLE + 1e-7},
    ],
    ids=["none", "all", "shorter numbers", "the last bit"],
)
def test_constants_may_be_in_the_file_and_are_not_kept(held: StateDict, tmp_path: Path) -> None:
    assert equal_states(took(FIXED, STATE | held, tmp_path), STATE)
    assert compute_fingerprint(ONE_FILE.spec, (tmp_path / "weights",)) == kept(tmp_path / "plain")


def kept(folder: Path) -> str:
    """Fingerprint of the tiny network alone."""
    folder.mkdir()
    took(ONE_FILE, STATE, folder)
    return compute_fingerprint(ONE_FILE.spec, (folder / "weights",))


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"encoder.order": ORDER[:, :5]}, "of another shape (encoder.order: 1x5 instead of 1x6)"),
        ({"encoder.count": torch.ones(2)}, "of another shape (encoder.count: 2 instead of scalar)"),
        ({"encoder.order": ORDER.flip(1)}, "encoder.order has other values than the network's own"),
        ({"encoder.order": ORDER + 0.25}, "encoder.order has other values"),
        ({"encoder.table": TABLE + 1e-3}, "encoder.table has other values"),
        ({"encoder.table": TABLE * float("nan")}, "encoder.table has other values"),
        ({"encoder.other": ORDER}, "1 unknown (encoder.other)"),
    ],
)
def test_a_constant_that_is_another_does_not_fit(held: StateDict, said: str, tmp_path: Path) -> None:
    assert said in refused(FIXED, STATE | held, tmp_path)


# Files beside the tensors ---------------------------------------------------------------------------------------------


@pytest.fixture
def delivered(tmp_path: Path) -> Path:
    """The folder as a hub delivers it, and more in it than is needed."""
    folder = tmp_path / "delivered"
    (folder / "words").mkdir(parents=True)
    save_zip(STATE, folder / "tiny.pt")
    for name, data in TOKENIZER_FILES.items():
        (folder / "words" / name).write_bytes(data)
    (folder / "configuration.json").write_text("{}")
    return folder


def files(delivered: Path) -> list[Path]:
    return [delivered / "words/merges.txt", delivered / "tiny.pt", delivered / "words/vocab.json"]


@pytest.mark.parametrize("paths", [files, lambda delivered: [delivered]], ids=["files", "folder"])
def test_files_beside_the_tensors_come_along(
    paths: Callable[[Path], list[Path]], delivered: Path, tmp_path: Path
) -> None:
    card = import_weights(WITH_TOKENIZER, paths(delivered), tmp_path / "weights", IMPORTED_AT)
    held = {file.name for file in (tmp_path / "weights").iterdir()}
    assert held == {"tiny.json", "tiny.safetensors", "tiny.vocab.json", "tiny.merges.txt"}
    found = find_side_files(WITH_TOKENIZER, (tmp_path, tmp_path / "weights"))
    assert {name: path.read_bytes() for name, path in found.items()} == TOKENIZER_FILES
    assert equal_states(load_imported(WITH_TOKENIZER.spec, (tmp_path / "weights",), EXPECTED), STATE)
    assert verify_imported(WITH_TOKENIZER.spec, (tmp_path / "weights",)) == card
    hashes = {f"tiny.{name}": hashlib.sha256(data).hexdigest() for name, data in TOKENIZER_FILES.items()}
    assert {side.name: side.sha256 for side in card.sides} == hashes


def test_the_fingerprint_is_that_of_all_files(delivered: Path, tmp_path: Path) -> None:
    card = import_weights(WITH_TOKENIZER, [delivered], tmp_path / "weights", IMPORTED_AT)
    lines = [
        f"{hashlib.sha256((tmp_path / 'weights' / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("tiny.safetensors", "tiny.merges.txt", "tiny.vocab.json")
    ]
    assert card.fingerprint == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert compute_fingerprint(WITH_TOKENIZER.spec, (tmp_path / "weights",)) == card.fingerprint
    (delivered / "words/vocab.json").write_text('{"b": 0}')
    other = import_weights(WITH_TOKENIZER, [delivered], tmp_path / "other", IMPORTED_AT)
    assert other.weights == card.weights
    assert other.fingerprint != card.fingerprint


@pytest.mark.parametrize("name", ["tiny.vocab.json", "tiny.merges.txt"])
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda path: path.unlink(), WeightsMissing),
        (lambda path: path.write_bytes(path.read_bytes() + b" "), WeightsCorrupt),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"a", b"c")), WeightsCorrupt),
    ],
    ids=["missing", "longer", "changed"],
)
def test_a_file_that_is_missing_or_another_is_named(
    change: Callable[[Path], None], error: type[SceneworksError], name: str, delivered: Path, tmp_path: Path
) -> None:
    folders = (tmp_path / "weights",)
    import_weights(WITH_TOKENIZER, [delivered], folders[0], IMPORTED_AT)
    change(folders[0] / name)
    for served in (
        lambda: find_side_files(WITH_TOKENIZER, folders),
        lambda: load_imported(WITH_TOKENIZER.spec, folders, EXPECTED),
        lambda: compute_fingerprint(WITH_TOKENIZER.spec, folders),
    ):
        with pytest.raises(error, match=name) as caught:
            served()
        assert str(tmp_path) not in caught.value.detail


def test_weights_that_were_imported_without_them_say_so(tmp_path: Path) -> None:
    took(ONE_FILE, STATE, tmp_path)
    with pytest.raises(WeightsCorrupt, match=r"imported without words/vocab\.json"):
        find_side_files(WITH_TOKENIZER, (tmp_path / "weights",))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("vocab.json", b'{"a": 0'),
        ("vocab.json", b"[1]"),
        ("vocab.json", b""),
        ("vocab.json", b'{"\xff": 0}'),
        ("vocab.json", b'{"a":' * 100_000),
        ("merges.txt", b" \n"),
        ("merges.txt", b"a b\xff\n"),
        ("merges.txt", b"PK\x03\x04\x8a\x00"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_not_imported(
    name: str, data: bytes, delivered: Path, tmp_path: Path
) -> None:
    (delivered / "words" / name).write_bytes(data)
    with pytest.raises(WeightsCorrupt, match=f"^{name} "):
        import_weights(WITH_TOKENIZER, [delivered], tmp_path / "weights", IMPORTED_AT)
    assert not (tmp_path / "weights").exists()


def test_a_folder_is_imported_by_itself(delivered: Path, tmp_path: Path) -> None:
    for paths in ([delivered, delivered], [delivered, *files(delivered)]):
        with pytest.raises(InvalidRequest, match="One folder is imported, or files are"):
            import_weights(WITH_TOKENIZER, paths, tmp_path / "weights", IMPORTED_AT)


def test_a_model_has_the_last_word_on_them(delivered: Path, tmp_path: Path) -> None:
    def judge(sides: Mapping[str, Path]) -> None:
        if "b" not in json.loads(sides["vocab.json"].read_text()):
            raise WeightsCorrupt(f"{sides['vocab.json'].name} does not know all letters of {sides['merges.txt'].name}.")

    with pytest.raises(WeightsCorrupt, match=r"vocab\.json does not know all letters of merges\.txt"):
        import_weights(replace(WITH_TOKENIZER, check_side_files=judge), [delivered], tmp_path / "weights", IMPORTED_AT)
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("gone", ["tiny.pt", "words/vocab.json", "words/merges.txt"])
def test_what_a_folder_lacks_is_named(gone: str, delivered: Path, tmp_path: Path) -> None:
    (delivered / gone).unlink()
    with pytest.raises(InvalidRequest, match=f"The folder delivered holds no {gone}. .*: the words;"):
        import_weights(WITH_TOKENIZER, [delivered], tmp_path / "weights", IMPORTED_AT)
    some = [path for path in files(delivered) if path.exists()]
    with pytest.raises(InvalidRequest, match=r"made from 3 files: tiny\.pt: everything; words/vocab\.json: the words"):
        import_weights(WITH_TOKENIZER, some, tmp_path / "weights", IMPORTED_AT)


# What was published ---------------------------------------------------------------------------------------------------


def test_the_card_says_whether_it_is_the_published_file(tmp_path: Path) -> None:
    save_zip(STATE, tmp_path / "tiny.pt")
    pinned = hashlib.sha256((tmp_path / "tiny.pt").read_bytes()).hexdigest()
    for pin, said in ((pinned, True), ("0" * 64, False), (None, None)):
        published = replace(ONE_FILE, tensor_files=(replace(ONE_FILE.tensor_files[0], sha256=pin),))
        card = import_weights(published, [tmp_path / "tiny.pt"], tmp_path / "weights", IMPORTED_AT)
        assert [source.published for source in card.sources] == [said]
        assert WeightsCard.from_file(tmp_path / "weights/tiny.json") == card


def test_a_card_of_earlier_weights_is_read(tmp_path: Path) -> None:
    took(ONE_FILE, STATE, tmp_path)
    card = tmp_path / "weights/tiny.json"
    told = json.loads(card.read_text())
    del told["sides"], told["sources"][0]["published"]
    card.write_text(json.dumps(told))
    assert compute_fingerprint(ONE_FILE.spec, (tmp_path / "weights",)) == told["weights"]["sha256"]
