"""CLIP-It in the two files that it is published in: an archive of TorchScript and a state dict."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shared.errors import InvalidRequest, WeightsCorrupt
from tests.support.checkpoints import (
    CPU_PLACEMENT,
    IMPORTED_AT,
    StateDict,
    add_prefix,
    drop_keys,
    import_fingerprint,
    make_state,
    save_torchscript,
    temporary_folder,
)
from tests.support.seeded_networks import make_clip_state
from tests.support.seeded_weights import GOLDEN, TOLERANCE, random_tensor, relative_error
from worker.models.clip_it.stages import MODEL
from worker.models.clip_it.weights import SCORER_PREFIX, WEIGHTS_MANIFEST, expected_shapes
from worker.weights import import_weights, load_imported

HEADER = {"input_resolution": 224, "context_length": 77, "vocab_size": 49_408}
HALF = 1e-3
"""How far 11 bits in place of 24 carry: features that CLIP's own file gives, against those of full weights."""
TABLE = "encoder.position_enc.pos_table"
UNUSED = ("decoder.", "layer_norm_img_src.", "layer_norm_img_trg.", "layer_norm_txt.")
LAYERS = "encoder.layer_stack."
ALONE = replace(
    WEIGHTS_MANIFEST,
    tensor_files=(
        replace(
            WEIGHTS_MANIFEST.tensor_files[0],
            drop_patterns=(*WEIGHTS_MANIFEST.tensor_files[0].drop_patterns, f"{LAYERS}*"),
        ),
    ),
    expected_shapes=lambda: {
        key: shape for key, shape in expected_shapes().items() if key.startswith(SCORER_PREFIX) and LAYERS not in key
    },
)
"""The scorer without CLIP and without its six layers, which take most of the time."""


def tables() -> StateDict:
    """Both tables of positions, entry by entry as the paper of transformers has them (float64)."""
    place, entry = np.mgrid[:4000, :512]
    angle = place / 10_000 ** (2 * (entry // 2) / 512)
    table = torch.from_numpy(np.where(entry % 2, np.cos(angle), np.sin(angle)).astype(np.float32)[None])
    return {f"{part}.position_enc.pos_table": table for part in ("encoder", "decoder")}


def archive(path: Path, dtype: torch.dtype) -> StateDict:
    """OpenAI's archive, and what is in it."""
    state = {key: value.to(dtype) for key, value in make_clip_state().items()}
    save_torchscript(state | {name: torch.tensor(value) for name, value in HEADER.items()}, path)
    return state


def delivered(folder: Path, dtype: torch.dtype) -> StateDict:
    """The folder of the model as the hub delivers it, imported; what CLIP's archive holds."""
    (folder / "model/clip").mkdir(parents=True)
    clip = archive(folder / "model/clip/ViT-B-32.pt", dtype)
    torch.save(make_state("clip_it", UNUSED) | tables(), folder / "model/pytorch_model.pt")
    (folder / "model/configuration.json").write_text("{}")
    import_weights(WEIGHTS_MANIFEST, [folder / "model"], folder / "weights", IMPORTED_AT)
    return clip


def check(folder: Path, tolerance: float) -> None:
    """The fixture's numbers of the weights that are served."""
    network = MODEL.load_network([folder / "weights"], CPU_PLACEMENT)
    scored, seen = np.load(GOLDEN / "clip_it_scorer.npz"), np.load(GOLDEN / "clip_it_clip.npz")
    with network.inference_context():
        frames, text = unit(random_tensor(31, 120, 512)), unit(random_tensor(32, 1, 3584))
        assert (
            relative_error(network.network.scorer.score_frames(frames[None], text[None]), scored["scores"]) < TOLERANCE
        )
        pixels = torch.from_numpy(seen["pixel_values"]).float()
        assert (
            relative_error(network.network.clip.encode_images(pixels), seen["pixel_from_half_image_features"])
            < tolerance
        )
        assert (
            relative_error(network.network.clip.encode_texts(torch.from_numpy(seen["tokens"])), seen["text_features"])
            < tolerance
        )


def unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, HALF), (torch.float32, TOLERANCE)], ids=["half", "full"]
)
def test_the_published_folder_is_served(dtype: torch.dtype, tolerance: float) -> None:
    """With CLIP in half precision, as it is published, and in full, which the fixture's numbers are of."""
    with temporary_folder() as folder:
        clip = delivered(folder, dtype)
        served = load_imported(WEIGHTS_MANIFEST.spec, [folder / "weights"], expected_shapes())
        assert all(torch.equal(served[f"clip.{key}"], value.float()) for key, value in clip.items())
        check(folder, tolerance)


# The scorer's file ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scorer() -> StateDict:
    """All that the published file holds, with zeros for what no test computes."""
    return make_state("clip_it", ("",)) | tables()


FORMS: dict[str, Callable[[StateDict], Any]] = {
    "params": lambda state: {"params": state},
    "in parallel": lambda state: add_prefix("module.", state),
    "fine-tuned": lambda state: {"meta": {"epoch": 3}, "state_dict": add_prefix("model.", state)},
    "what scores depend on": lambda state: {key: state[key] for key in state if not key.startswith((*UNUSED, TABLE))},
}


@pytest.fixture(scope="module")
def flat(scorer: StateDict) -> Iterator[str]:
    """Fingerprint of the flat file's weights."""
    with temporary_folder() as folder:
        yield import_fingerprint(ALONE, scorer, folder)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_the_scorer_gives_the_same_weights(
    form: Callable[[StateDict], Any], scorer: StateDict, flat: str
) -> None:
    with temporary_folder() as folder:
        assert import_fingerprint(ALONE, form(scorer), folder) == flat


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: drop_keys(state, "linear_2.bias"), r"1 missing \(scorer\.linear_2\.bias\)"),
        (lambda state: state | {"linear_3.bias": torch.ones(1)}, r"1 unknown \(scorer\.linear_3\.bias\)"),
        (lambda state: state | {"linear_2.bias": torch.ones(2)}, r"scorer\.linear_2\.bias: 2 instead of 1"),
        (lambda state: state | {TABLE: state[TABLE][:, :1000]}, r"pos_table: 1x1000x512 instead of 1x4000x512"),
        (lambda state: state | {TABLE: state[TABLE].flip(1)}, rf"scorer\.{TABLE} has other values than the network's"),
    ],
)
def test_what_does_not_fit_is_named(
    change: Callable[[StateDict], StateDict], said: str, scorer: StateDict, tmp_path: Path
) -> None:
    with pytest.raises(WeightsCorrupt, match=said):
        import_fingerprint(ALONE, change(scorer), tmp_path)
    assert not (tmp_path / "weights").exists()


# CLIP's file ----------------------------------------------------------------------------------------------------------


def empty_clip(**other: Tensor) -> StateDict:
    """CLIP's names and shapes with zeros, which take no space."""
    shapes = {key.removeprefix("clip."): shape for key, shape in expected_shapes().items() if key.startswith("clip.")}
    return {key: torch.zeros((), dtype=torch.float16).expand(shape) for key, shape in shapes.items()} | other


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (drop_keys(empty_clip(), "logit_scale"), r"1 missing \(clip\.logit_scale\)"),
        (empty_clip(**{"visual.extra": torch.ones(1)}), r"1 unknown \(clip\.visual\.extra\)"),
        (empty_clip(**{"visual.proj": torch.ones(768, 640)}), r"clip\.visual\.proj: 768x640 instead of 768x512"),
    ],
)
def test_another_clip_does_not_fit(state: StateDict, said: str, scorer: StateDict, tmp_path: Path) -> None:
    save_torchscript(state, tmp_path / "ViT-B-32.pt")
    torch.save(scorer, tmp_path / "pytorch_model.pt")
    with pytest.raises(WeightsCorrupt, match=said):
        import_weights(
            WEIGHTS_MANIFEST,
            [tmp_path / "ViT-B-32.pt", tmp_path / "pytorch_model.pt"],
            tmp_path / "weights",
            IMPORTED_AT,
        )


def test_an_archive_that_is_cut_off_is_corrupt_and_one_that_is_missing_is_named(
    scorer: StateDict, tmp_path: Path
) -> None:
    (tmp_path / "clip").mkdir()
    torch.save(scorer, tmp_path / "pytorch_model.pt")
    with pytest.raises(InvalidRequest, match=r"holds no clip/ViT-B-32\.pt\. .+ OpenAI's CLIP"):
        import_weights(WEIGHTS_MANIFEST, [tmp_path], tmp_path / "weights", IMPORTED_AT)
    save_torchscript(empty_clip(), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for size in (len(whole) // 2, len(whole) - 30):
        (tmp_path / "clip/ViT-B-32.pt").write_bytes(whole[:size])
        with pytest.raises(WeightsCorrupt, match=r"^ViT-B-32\.pt cannot be read as weights: it is cut off"):
            import_weights(WEIGHTS_MANIFEST, [tmp_path], tmp_path / "weights", IMPORTED_AT)


def test_the_published_archive_is_known_by_its_hash(tmp_path: Path) -> None:
    """The model pins it; another archive is imported all the same, and its card says that it is another."""
    assert WEIGHTS_MANIFEST.tensor_files[1].sha256 == "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
    small = drop_keys(empty_clip(), *(key for key in empty_clip() if "resblocks" in key or "embedding" in key))
    save_torchscript(small, tmp_path / "ViT-B-32.pt")
    clip = replace(WEIGHTS_MANIFEST.tensor_files[1], add_prefix="")
    shapes = {key: tuple(value.shape) for key, value in small.items()}
    alone = replace(WEIGHTS_MANIFEST, tensor_files=(clip,), expected_shapes=lambda: shapes)
    mine = hashlib.sha256((tmp_path / "ViT-B-32.pt").read_bytes()).hexdigest()
    known = replace(alone, tensor_files=(replace(clip, sha256=mine),))
    for published, said in ((alone, False), (known, True)):
        card = import_weights(published, [tmp_path / "ViT-B-32.pt"], tmp_path / "weights", IMPORTED_AT)
        assert [source.published for source in card.sources] == [said]
