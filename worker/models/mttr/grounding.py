"""MTTR on its device together with its tokenizer: the network that `encode` gets."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from cachetools import LRUCache
from torch import Tensor
from transformers import RobertaTokenizer

from worker.models.mttr.config import QUERY_CACHE_SIZE
from worker.models.mttr.network import MTTR
from worker.networks.roberta import tokenize_sentence
from worker.runtime.device import DeviceNetwork


@dataclass(frozen=True, slots=True)
class Grounding:
    """The network that finds in a video the object that a sentence names.

    Args:
        device_network: the network on its device.
        tokenizer: of its text encoder.
    """

    device_network: DeviceNetwork[MTTR]
    tokenizer: RobertaTokenizer
    _encoded_queries: LRUCache[str, Tensor] = field(default_factory=lambda: LRUCache(QUERY_CACHE_SIZE))

    def encode_query(self, query: str) -> Tensor:
        """Encode a query: (1, L, 256) on the device, always in fp32. Recent sentences are cached.

        Raises:
            InvalidRequest: the query has more tokens than the network has positions for.
        """
        sentence = normalise_query(query)
        if sentence not in self._encoded_queries:
            ids_1L = torch.tensor([tokenize_sentence(self.tokenizer, sentence)], device=self.device_network.device)
            with self.device_network.inference_context("fp32"):
                words_1LC = self.device_network.network.encode_queries(ids_1L, torch.ones_like(ids_1L))
            self._encoded_queries[sentence] = words_1LC
        return self._encoded_queries[sentence]


def normalise_query(query: str) -> str:
    """Convert to lower case with single spaces, as the sentences were that the network was trained on."""
    return " ".join(query.lower().split())
