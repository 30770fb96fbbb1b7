"""Networks with name-seeded weights, in place, for the rooms whose weights are imported."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from tests.models.seeded import seeded
from worker.encoders.placed import Placed
from worker.models.bassl.network import BaSSL
from worker.models.scrl.network import SCRL


@cache
def bassl() -> Placed[BaSSL]:
    """BaSSL on the CPU in fp32."""
    network = BaSSL()
    seeded(network, "bassl")
    return Placed.put(network, "cpu", "fp32")


@cache
def scrl() -> Placed[SCRL]:
    """SCRL on the CPU in fp32."""
    network = SCRL()
    seeded(network.encoder, "scrl_encoder", drop="fc.")
    seeded(network.boundary, "scrl_bilstm")
    return Placed.put(network, "cpu", "fp32")


NETWORKS: dict[str, Callable[[], Any]] = {"bassl": bassl, "scrl": scrl}
