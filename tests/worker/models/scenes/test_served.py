"""Published files in their containers, imported and served: the fixtures' numbers come out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shared.catalog import BasslParams, ScrlParams
from shared.errors import WeightsCorrupt, WeightsMissing
from tests.support.seeded_weights import GOLDEN, TOLERANCE, random_tensor, read_table, relative_error
from tests.worker.models.scenes.synthetic_shots import make_window_outputs
from worker.models.bassl import weights as bassl
from worker.models.bassl.network import BaSSL
from worker.models.bassl.stages import MODEL as BASSL
from worker.models.scrl import weights as scrl
from worker.models.scrl.stages import MODEL as SCRL
from worker.runtime.placement import Placement
from worker.weights import import_weights

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
PLACE = Placement(threads=2)
State = dict[str, Tensor]


def seeded_state(name: str) -> State:
    """The published state dict, without its constants."""
    return {row.key: row.make_tensor() for row in read_table(name) if row.kind != "keep"}


@pytest.fixture(scope="module")
def bassl_state() -> State:
    """All tensors that the published file holds."""
    return dict(BaSSL().state_dict()) | seeded_state("bassl")


def flat(state: State) -> Any:
    return state


def lightning(state: State) -> Any:
    """As upstream's trainer leaves it: settings beside the weights, a head of pre-training among them."""
    heads = {"loss.head_nce.model.0.weight": torch.ones(2, 2)}
    return {"epoch": 9, "state_dict": state | heads, "hyper_parameters": {"lr": 1e-5}}


@pytest.mark.parametrize("container", [flat, lightning], ids=["flat", "lightning"])
def test_bassl_is_served_from_its_published_file(
    container: Callable[[State], Any], bassl_state: State, tmp_path: Path
) -> None:
    torch.save(container(bassl_state), tmp_path / "pytorch_model.pt")
    import_weights(bassl.WEIGHTS_MANIFEST, [tmp_path / "pytorch_model.pt"], tmp_path / "weights", AT)
    network = BASSL.load_network([tmp_path / "weights"], PLACE)
    golden = np.load(GOLDEN / "bassl_crn.npz")
    with network.inference_context():
        assert (
            relative_error(network.network(random_tensor(int(golden["shot_repr_seed"]), 3, 17, 2048)), golden["logits"])
            < TOLERANCE
        )
    golden = np.load(GOLDEN / "bassl_encoder.npz")
    with network.inference_context():
        assert (
            relative_error(network.network.encode_keyframes(torch.from_numpy(golden["x"]).float()), golden["y"])
            < TOLERANCE
        )


def test_scrl_is_served_from_its_two_published_files(tmp_path: Path) -> None:
    encoder = {key: value for key, value in seeded_state("scrl_encoder").items() if not key.startswith("fc.")}
    counts = {row.key: torch.tensor(0) for row in read_table("scrl_encoder") if row.kind == "keep"}
    trained = {f"module.encoder_q.{key}": value for key, value in (encoder | counts).items()}
    trained |= {f"module.encoder_k.{key}": -value for key, value in encoder.items()}
    trained |= {f"module.encoder_q.fc.{layer}.{part}": torch.ones(2) for layer in (0, 2) for part in ("weight", "bias")}
    trained |= {"module.queue": torch.ones(4, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    head = seeded_state("scrl_bilstm")
    head |= {row.key: torch.tensor(0) for row in read_table("scrl_bilstm") if row.kind == "keep"}
    files = [tmp_path / "model_best.pth.tar", tmp_path / "checkpoint_0100.pth.tar"]
    torch.save({"state_dict": head, "epoch": 150}, files[0])
    torch.save({"epoch": 100, "arch": "resnet50", "state_dict": trained, "optimizer": {"lr": 0.03}}, files[1])
    import_weights(scrl.WEIGHTS_MANIFEST, files, tmp_path / "weights", AT)
    network = SCRL.load_network([tmp_path / "weights"], PLACE)
    golden = np.load(GOLDEN / "scrl_infer_53.npz")
    scored = SCRL.infer(network, make_window_outputs(random_tensor(53, 53, 1, 2048).numpy()), ScrlParams())
    assert relative_error(scored.probabilities, golden["prob"]) < TOLERANCE
    assert all(torch.equal(network.network.encoder.state_dict()[key], value) for key, value in encoder.items())


def test_what_is_missing_is_named(bassl_state: State, tmp_path: Path) -> None:
    short = {key: value for key, value in bassl_state.items() if key != "head_sbd.bias"}
    torch.save(short, tmp_path / "pytorch_model.pt")
    with pytest.raises(WeightsCorrupt, match=r"head_sbd\.bias"):
        import_weights(bassl.WEIGHTS_MANIFEST, [tmp_path / "pytorch_model.pt"], tmp_path / "weights", AT)
    assert not (tmp_path / "weights" / "bassl.safetensors").exists()


@pytest.mark.parametrize("room", [BASSL, SCRL], ids=["bassl", "scrl"])
def test_without_weights_the_command_is_named(room: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=f"sceneworks-worker weights .* ?{room.name}"):
        room.load_network([tmp_path], PLACE)


def test_parameters_have_the_published_defaults() -> None:
    assert (BasslParams().threshold, ScrlParams().threshold) == (0.8, 0.5)
