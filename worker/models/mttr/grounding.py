"""MTTR in place with its tokenizer: what `encode` is handed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import RobertaTokenizer

from worker.models.mttr.config import QUERY_CACHE_SIZE
from worker.models.mttr.network import MTTR
from worker.networks.roberta import tokenize_sentence
from worker.runtime.device import DeviceNetwork


@dataclass(frozen=True, slots=True)
class Grounding:
    """The network that finds in a film what a sentence names.

    Args:
        device_network: the network.
        tokenizer: of its text encoder.
    """

    device_network: DeviceNetwork[MTTR]
    tokenizer: RobertaTokenizer
    _encoded_queries: OrderedDict[str, Tensor] = field(default_factory=OrderedDict)

    def encode_query(self, query: str) -> Tensor:
        """What the text encoder makes of a query, (1, L, 256) on the device; always in fp32, once for each sentence.

        Raises:
            InvalidRequest: the query has more tokens than the network has positions for.
        """
        sentence = normalise_query(query)
        if sentence not in self._encoded_queries:
            ids_1L = torch.tensor([tokenize_sentence(self.tokenizer, sentence)], device=self.device_network.device)
            with self.device_network.inference_context("fp32"):
                self._encoded_queries[sentence] = self.device_network.network.encode_queries(
                    ids_1L, torch.ones_like(ids_1L)
                )
            while len(self._encoded_queries) > QUERY_CACHE_SIZE:
                self._encoded_queries.popitem(last=False)
        self._encoded_queries.move_to_end(sentence)
        return self._encoded_queries[sentence]


def normalise_query(query: str) -> str:
    """Lower case, and one space wherever there was any: as the network was trained."""
    return " ".join(query.lower().split())
