"""Published files become weights: two files for one model, the card, what does not fit, and what is served."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from shared.catalog import WeightsSpec
from shared.errors import InvalidRequest, WeightsCorrupt, WeightsMissing
from tests.support.tiny_model import (
    CONTAINERS,
    EXPECTED,
    IMPORTED_AT,
    ONE_FILE,
    STATE,
    TWO_FILES,
    Network,
    StateDict,
    equal_states,
    make_seeded_state,
    save_zip,
)
from worker.weights import (
    WeightsCard,
    WeightsManifest,
    compute_fingerprint,
    import_weights,
    load_imported,
    verify_imported,
)
from worker.weights.pinned import load_state_strict

every_container = pytest.mark.parametrize("write", CONTAINERS.values(), ids=CONTAINERS)


@every_container
def test_every_container_is_imported_and_served(write: Callable[[StateDict, Path], None], tmp_path: Path) -> None:
    published, folder, network = tmp_path / "published.pt", tmp_path / "weights", Network()
    write(STATE, published)
    card = import_weights(ONE_FILE, [published], folder, IMPORTED_AT)
    published.unlink()
    load_state_strict(network, load_imported(ONE_FILE.spec, (tmp_path, folder), EXPECTED), "tiny")
    assert equal_states(network.state_dict(), STATE)
    assert compute_fingerprint(ONE_FILE.spec, (folder,)) == card.weights.sha256


def test_the_same_tensors_have_the_same_fingerprint(tmp_path: Path) -> None:
    prints = set()
    for name, write in CONTAINERS.items():
        write(STATE, tmp_path / "file")
        prints.add(import_weights(ONE_FILE, [tmp_path / "file"], tmp_path / name, IMPORTED_AT).weights.sha256)
    assert len(prints) == 1


def halves() -> tuple[dict[str, Any], dict[str, Any]]:
    """The two checkpoints of SCRL: the pre-training one, with all that only it needs, and the head's."""
    encoder = {name.removeprefix("encoder."): value for name, value in STATE.items() if name.startswith("encoder.")}
    queries = {f"module.encoder_q.{name}": value for name, value in encoder.items()}
    keys = {f"module.encoder_k.{name}": value + 1 for name, value in encoder.items()}
    spare = {
        "module.encoder_q.fc.0.weight": torch.ones(1),
        "module.queue": torch.ones(1),
        "module.queue_ptr": torch.ones(1),
    }
    head = {name.removeprefix("boundary."): value for name, value in STATE.items() if name.startswith("boundary.")}
    return {"epoch": 99, "state_dict": queries | keys | spare}, {"epoch": 180, "state_dict": head}


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_two_files_make_one_model_in_any_order(order: list[int], tmp_path: Path) -> None:
    files = [tmp_path / "checkpoint_0099.pth.tar", tmp_path / "model_best.pth.tar"]
    for payload, file in zip(halves(), files, strict=True):
        save_zip(payload, file)
    card = import_weights(TWO_FILES, [files[which] for which in order], tmp_path / "weights", IMPORTED_AT)
    assert equal_states(load_imported(TWO_FILES.spec, (tmp_path / "weights",), EXPECTED), STATE)
    assert {source.name for source in card.sources} == {file.name for file in files}


def test_the_same_half_twice_is_not_a_model(tmp_path: Path) -> None:
    save_zip(halves()[0], tmp_path / "a.pth.tar")
    with pytest.raises(WeightsCorrupt, match=r"2 missing \(boundary\.bias, boundary\.weight\)"):
        import_weights(TWO_FILES, [tmp_path / "a.pth.tar", tmp_path / "a.pth.tar"], tmp_path / "weights", IMPORTED_AT)
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("files", [0, 1, 3])
def test_too_few_or_too_many_files_are_refused(files: int, tmp_path: Path) -> None:
    save_zip(halves()[1], tmp_path / "head.pt")
    with pytest.raises(InvalidRequest, match=r"2 files: encoder\.pth\.tar: .+; model_best\.pth\.tar: the head"):
        import_weights(TWO_FILES, [tmp_path / "head.pt"] * files, tmp_path / "weights", IMPORTED_AT)


# The card -------------------------------------------------------------------------------------------------------------


def test_the_card_says_what_the_weights_are(tmp_path: Path) -> None:
    save_zip(STATE, tmp_path / "tiny.pt")
    card = import_weights(ONE_FILE, [tmp_path / "tiny.pt"], tmp_path / "weights", IMPORTED_AT)
    told = json.loads((tmp_path / "weights" / "tiny.json").read_text(encoding="utf-8"))
    assert (told["architecture"], told["preprocessing"]) == ({"layers": 2}, {"short_side": 224})
    assert (told["room"], told["licence"], told["origin"]) == ("tiny", "MIT", "made here")
    assert told["imported_at"] == "2026-11-20T12:00:00+00:00"
    assert told["sources"][0]["name"] == "tiny.pt"
    assert len(told["sources"][0]["sha256"]) == 64
    assert verify_imported(ONE_FILE.spec, (tmp_path / "weights",)) == card
    assert {file.name for file in (tmp_path / "weights").iterdir()} == {"tiny.json", "tiny.safetensors"}


def test_a_view_does_not_bring_what_it_is_a_view_of(tmp_path: Path) -> None:
    large = torch.zeros(1000, 1000)
    save_zip(STATE | {"boundary.weight": large[:2, :4], "boundary.bias": large[0, :2]}, tmp_path / "tiny.pt")
    card = import_weights(ONE_FILE, [tmp_path / "tiny.pt"], tmp_path / "weights", IMPORTED_AT)
    assert card.weights.size < 5000
    assert load_imported(ONE_FILE.spec, (tmp_path / "weights",), EXPECTED)["boundary.weight"].sum() == 0


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    halved = {key: value.half() if value.is_floating_point() else value for key, value in STATE.items()}
    save_zip(halved, tmp_path / "tiny.pt")
    import_weights(ONE_FILE, [tmp_path / "tiny.pt"], tmp_path / "weights", IMPORTED_AT)
    served = load_imported(ONE_FILE.spec, (tmp_path / "weights",), EXPECTED)
    assert {key: value.dtype for key, value in served.items()} == {key: value.dtype for key, value in STATE.items()}
    assert all(torch.equal(served[key], halved[key].to(served[key].dtype)) for key in served)


# What does not fit ----------------------------------------------------------------------------------------------------


def without(state: StateDict, *names: str) -> StateDict:
    return {key: value for key, value in state.items() if key not in names}


MISFITS: dict[str, tuple[Callable[[StateDict], StateDict], str]] = {
    "missing": (lambda state: without(state, "boundary.bias"), r"1 missing \(boundary\.bias\)"),
    "unknown": (lambda state: state | {"loss.head.bias": torch.zeros(1)}, r"1 unknown \(loss\.head\.bias\)"),
    "shape": (
        lambda state: state | {"boundary.weight": torch.zeros(2, 3)},
        r"1 of another shape \(boundary\.weight: 2x3 instead of 2x4\)",
    ),
    "all three": (
        lambda state: without(state, "boundary.bias") | {"b": torch.zeros(1), "boundary.weight": torch.tensor(1.0)},
        r"1 missing \(boundary\.bias\); 1 unknown \(b\); 1 of another shape \(boundary\.weight: scalar instead",
    ),
    "many": (
        lambda _: make_seeded_state({f"x{n}": (1,) for n in range(9)}),
        r"9 unknown \(x0, x1, x2, x3, x4, \.\.\.\)",
    ),
}
every_misfit = pytest.mark.parametrize(("change", "said"), MISFITS.values(), ids=MISFITS)


@every_misfit
def test_what_does_not_fit_is_named_and_nothing_is_written(
    change: Callable[[StateDict], StateDict], said: str, tmp_path: Path
) -> None:
    save_zip(STATE, tmp_path / "good.pt")
    before = import_weights(ONE_FILE, [tmp_path / "good.pt"], tmp_path / "weights", IMPORTED_AT)
    save_zip(change(STATE), tmp_path / "tiny.pt")
    with pytest.raises(WeightsCorrupt, match=said):
        import_weights(ONE_FILE, [tmp_path / "tiny.pt"], tmp_path / "weights", IMPORTED_AT)
    assert verify_imported(ONE_FILE.spec, (tmp_path / "weights",)) == before


@every_misfit
def test_what_does_not_fit_is_not_served(change: Callable[[StateDict], StateDict], said: str, tmp_path: Path) -> None:
    odd = change(STATE)
    save_zip(odd, tmp_path / "tiny.pt")
    other = WeightsManifest(
        ONE_FILE.spec, ONE_FILE.tensor_files, {}, {}, lambda: {key: tuple(odd[key].shape) for key in odd}
    )
    import_weights(other, [tmp_path / "tiny.pt"], tmp_path / "weights", IMPORTED_AT)
    with pytest.raises(WeightsCorrupt, match=said):
        load_imported(ONE_FILE.spec, (tmp_path / "weights",), EXPECTED)


# Serving --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Weights in place."""
    save_zip(STATE, tmp_path / "tiny.pt")
    import_weights(ONE_FILE, [tmp_path / "tiny.pt"], tmp_path / "weights", IMPORTED_AT)
    return tmp_path / "weights"


def refused(folder: Path) -> str:
    with pytest.raises(WeightsCorrupt) as caught:
        load_imported(ONE_FILE.spec, (folder,), EXPECTED)
    with pytest.raises(WeightsCorrupt):
        compute_fingerprint(ONE_FILE.spec, (folder,))
    assert str(folder) not in caught.value.detail
    return caught.value.detail


def test_missing_weights_name_the_command(tmp_path: Path) -> None:
    for folders in [(), (tmp_path,), (tmp_path / "absent",)]:
        with pytest.raises(WeightsMissing, match="sceneworks-worker weights import tiny"):
            load_imported(ONE_FILE.spec, folders, EXPECTED)


@pytest.mark.parametrize(
    "change",
    [lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda _: b""],
    ids=["cut off", "one bit", "empty"],
)
def test_tensors_that_changed_are_not_served(change: Callable[[bytes], bytes], folder: Path) -> None:
    tensors = folder / "tiny.safetensors"
    tensors.write_bytes(change(tensors.read_bytes()))
    assert "not the file that its card describes" in refused(folder)


def test_tensors_without_a_card_are_not_served(folder: Path) -> None:
    (folder / "tiny.json").unlink()
    assert "no card" in refused(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "words", '{"version": 1}', '{"version": 2}', '{"version": 1, "weights": 7}']
)
def test_a_card_that_cannot_be_read_serves_nothing(text: str, folder: Path) -> None:
    (folder / "tiny.json").write_text(text, encoding="utf-8")
    assert "card" in refused(folder)


def test_weights_of_another_model_are_not_served(folder: Path) -> None:
    for suffix in (".json", ".safetensors"):
        (folder / f"tiny{suffix}").rename(folder / f"other{suffix}")
    other = WeightsSpec("other.safetensors", "", 0, "MIT", "made here", "nothing")
    with pytest.raises(WeightsCorrupt, match="not the file that its card describes"):
        verify_imported(other, (folder,))


def test_a_pickle_is_never_served(folder: Path, tmp_path: Path) -> None:
    """Not even one without code in it, with a card that has its hash."""
    save_zip(STATE, folder / "tiny.safetensors")
    told = json.loads((folder / "tiny.json").read_text(encoding="utf-8"))
    data = (folder / "tiny.safetensors").read_bytes()
    told["weights"] |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (folder / "tiny.json").write_text(json.dumps(told), encoding="utf-8")
    assert WeightsCard.from_file(folder / "tiny.json").weights.size == len(data)
    with pytest.raises(WeightsCorrupt, match="cannot be read as weights"):
        load_imported(ONE_FILE.spec, (folder,), EXPECTED)


def test_new_weights_take_the_place_of_old_ones(folder: Path, tmp_path: Path) -> None:
    before = verify_imported(ONE_FILE.spec, (folder,))
    save_zip(STATE | {"boundary.bias": torch.ones(2)}, tmp_path / "new.pt")
    after = import_weights(ONE_FILE, [tmp_path / "new.pt"], folder, IMPORTED_AT)
    assert before.weights.sha256 != after.weights.sha256 == compute_fingerprint(ONE_FILE.spec, (folder,))
    assert load_file(folder / "tiny.safetensors")["boundary.bias"].tolist() == [1, 1]
