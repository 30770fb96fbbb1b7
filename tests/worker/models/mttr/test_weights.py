"""MTTR in the files that it is published in: tensors, and the words and pairs of its tokenizer beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shared.errors import InvalidRequest, WeightsCorrupt, WeightsMissing
from tests.support.checkpoints import (
    CPU_PLACEMENT,
    IMPORTED_AT,
    StateDict,
    add_prefix,
    drop_keys,
    make_state,
    temporary_folder,
)
from tests.support.seeded_weights import GOLDEN, TOLERANCE, random_tensor, relative_error
from tests.support.vocabulary import BIKE, GUY, write_vocabulary
from worker.models.mttr.network import pad_videos
from worker.models.mttr.stages import MODEL
from worker.models.mttr.weights import WEIGHTS_MANIFEST, expected_shapes
from worker.networks.roberta import tokenize_sentence
from worker.weights import compute_fingerprint, find_side_files, import_weights

PLACES = "transformer.text_encoder.embeddings.position_ids"
INDEX = "backbone.layers.0.blocks.0.attn.relative_position_index"
LARGE = ("transformer.*", "backbone.layers.[12].*", "backbone.downsamples.*")
SMALL = replace(
    WEIGHTS_MANIFEST,
    tensor_files=(replace(WEIGHTS_MANIFEST.tensor_files[0], drop_patterns=LARGE),),
    expected_shapes=lambda: {key: shape for key, shape in expected_shapes().items() if not is_large(key)},
)
"""Both ends of the network: what is between takes most of the time."""


def is_large(key: str) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in LARGE)


def constants() -> StateDict:
    """As the published file holds them; which bias belongs to which two of 8 x 7 x 7 tokens, counted out."""
    t, y, x = np.unravel_index(np.arange(8 * 7 * 7), (8, 7, 7))
    apart = [own[:, None] - own[None] + size - 1 for own, size in ((t, 8), (y, 7), (x, 7))]
    index = torch.from_numpy((apart[0] * 13 + apart[1]) * 13 + apart[2])
    blocks = [(layer, block) for layer, blocks in enumerate((2, 2, 6)) for block in range(blocks)]
    names = [f"backbone.layers.{layer}.blocks.{block}.attn.relative_position_index" for layer, block in blocks]
    return {PLACES: torch.arange(514)[None]} | dict.fromkeys(names, index)


def delivered(folder: Path, payload: Any) -> Path:
    """The folder of the model as the hub delivers it."""
    (folder / "model/transformer_cfg_dir").mkdir(parents=True, exist_ok=True)
    torch.save(payload, folder / "model/pytorch_model.pt")
    write_vocabulary(folder / "model/transformer_cfg_dir")
    (folder / "model/transformer_cfg_dir/config.json").write_text('{"model_type": "roberta"}')
    return folder / "model"


@pytest.mark.slow
def test_the_published_folder_is_served() -> None:
    """From words to masks, by the tokens of the files beside the tensors."""
    with temporary_folder() as folder:
        import_weights(
            WEIGHTS_MANIFEST, [delivered(folder, make_state("mttr") | constants())], folder / "weights", IMPORTED_AT
        )
        grounding, golden = MODEL.load_network([folder / "weights"], CPU_PLACEMENT), np.load(GOLDEN / "mttr_batch.npz")
        queries = [tokenize_sentence(grounding.tokenizer, sentence) for sentence in (BIKE, GUY)]
        assert queries == [golden["token_ids0"].tolist(), golden["token_ids1"].tolist()]
        ids = torch.tensor([[*queries[0], 1], queries[1]])
        pairs = zip(golden["seeds"].tolist(), golden["shapes"].tolist(), strict=True)
        videos = pad_videos([random_tensor(seed, *shape) for seed, shape in pairs])
        with grounding.device_network.inference_context():
            prediction = grounding.device_network.network(
                videos, ids, ids != 1, torch.from_numpy(golden["valid_indices"])
            )
        wanted = golden["pred_is_referred"]
        assert relative_error(prediction.referred_DNQ2[-1].reshape(wanted.shape), wanted) < TOLERANCE
        masks = prediction.mask_logits()[:, ::5]
        assert relative_error(masks.reshape(golden["pred_masks"].shape), golden["pred_masks"]) < TOLERANCE


# Forms ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state() -> StateDict:
    """All that the published file holds: numbers where the tests look, and zeros."""
    shapes = expected_shapes()
    large = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items() if is_large(key)}
    return (
        {key: random_tensor(len(key), *shape) for key, shape in shapes.items() if not is_large(key)}
        | large
        | constants()
    )


@pytest.fixture(scope="module")
def folder(state: StateDict) -> Iterator[Path]:
    """With weights of the flat file."""
    with temporary_folder() as place:
        import_weights(SMALL, [delivered(place, state)], place / "weights", IMPORTED_AT)
        yield place


def authors(state: StateDict) -> Any:
    """`refer-youtube-vos_window-12.pth.tar`: all that training goes on from."""
    layer = torch.nn.Linear(2, 2)
    groups: list[dict[str, Any]] = [{"params": layer.parameters()}, {"params": [], "lr": 1e-5}]
    optimizer = torch.optim.AdamW(groups)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "epoch": 29,
        "total_epochs": 30,
        "model_state_dict": state,
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": torch.optim.lr_scheduler.MultiStepLR(optimizer, [20], gamma=0.4).state_dict(),
        "grad_scaler_state_dict": {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "_growth_tracker": 3},
        "best_loss": 17.25,
    }


FORMS: dict[str, Callable[[StateDict], Any]] = {
    "model_state_dict": lambda state: {"model_state_dict": state},
    "the authors'": authors,
    "the authors', scored": lambda state: authors(state) | {"best_mAP": np.float64(0.461)},
    "fine-tuned": lambda state: {"meta": {"iter": 9}, "state_dict": add_prefix("model.", state)},
    "without constants": lambda state: drop_keys(state, *constants()),
    "newer transformers": lambda state: drop_keys(state, PLACES),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_weights(form: Callable[[StateDict], Any], state: StateDict, folder: Path) -> None:
    with temporary_folder() as other:
        paths = [*write_vocabulary(other), other / "window-12.pth.tar"]
        torch.save(form(state), paths[-1])
        card = import_weights(SMALL, paths, other / "weights", IMPORTED_AT)
    assert card.fingerprint == compute_fingerprint(SMALL.spec, [folder / "weights"])


@pytest.mark.parametrize(
    ("change", "prediction"),
    [
        (lambda state: drop_keys(state, "is_referred_head.bias"), r"1 missing \(is_referred_head\.bias\)"),
        (lambda state: state | {"is_referred_tail.bias": torch.ones(2)}, r"1 unknown \(is_referred_tail\.bias\)"),
        (
            lambda state: state | {"obj_queries.weight": torch.ones(20, 256)},
            r"obj_queries\.weight: 20x256 instead of 50",
        ),
        (
            lambda state: state | {INDEX: state[INDEX].T.contiguous()},
            rf"{INDEX} has other values than the network's own",
        ),
        (lambda state: state | {INDEX: state[INDEX][:98, :98]}, rf"{INDEX}: 98x98 instead of 392x392"),
    ],
)
def test_what_does_not_fit_is_named(
    change: Callable[[StateDict], StateDict], prediction: str, state: StateDict, tmp_path: Path
) -> None:
    with pytest.raises(WeightsCorrupt, match=prediction):
        import_weights(SMALL, [delivered(tmp_path, change(state))], tmp_path / "weights", IMPORTED_AT)
    assert not (tmp_path / "weights").exists()


def test_a_file_that_is_cut_off_is_corrupt(state: StateDict, tmp_path: Path) -> None:
    model = delivered(tmp_path, state) / "pytorch_model.pt"
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(WeightsCorrupt, match=r"^pytorch_model\.pt cannot be read as weights: it is cut off"):
        import_weights(SMALL, [tmp_path / "model"], tmp_path / "weights", IMPORTED_AT)


# The tokenizer's files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_tokenizer_that_is_not_there_is_named(name: str, state: StateDict, folder: Path, tmp_path: Path) -> None:
    whole = delivered(tmp_path, state)
    (whole / "transformer_cfg_dir" / name).unlink()
    with pytest.raises(InvalidRequest, match=f"The folder model holds no transformer_cfg_dir/{name}"):
        import_weights(SMALL, [whole], tmp_path / "weights", IMPORTED_AT)
    with pytest.raises(InvalidRequest, match=r"made from 3 files: pytorch_model\.pt: "):
        import_weights(SMALL, [whole / "pytorch_model.pt"], tmp_path / "weights", IMPORTED_AT)
    kept = folder / "weights" / f"mttr.{name}"
    assert find_side_files(SMALL, [folder / "weights"])[name] == kept
    kept.rename(tmp_path / name)
    with pytest.raises(WeightsMissing, match=rf"mttr\.{name} is not there.*sceneworks-worker weights pull mttr"):
        MODEL.load_network([folder / "weights"], CPU_PLACEMENT)
    (tmp_path / name).rename(kept)


@pytest.mark.parametrize(
    ("name", "change", "prediction"),
    [
        ("vocab.json", lambda text: text[:-9], "vocab.json cannot be read"),
        (
            "vocab.json",
            lambda text: text.replace('"<s>": 0', '"<s>": 9'),
            "vocab.json is not the vocabulary of RoBERTa",
        ),
        ("merges.txt", lambda text: text + "not a pair\n", "merges.txt is no list of pairs"),
        ("merges.txt", lambda text: text + "q q\n", "merges.txt does not belong to vocab.json"),
    ],
)
def test_another_tokenizer_is_not_imported(
    name: str, change: Callable[[str], str], prediction: str, state: StateDict, tmp_path: Path
) -> None:
    spoiled = delivered(tmp_path, state) / "transformer_cfg_dir" / name
    spoiled.write_text(change(spoiled.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(WeightsCorrupt, match=prediction):
        import_weights(SMALL, [tmp_path / "model"], tmp_path / "weights", IMPORTED_AT)
    assert not (tmp_path / "weights").exists()
