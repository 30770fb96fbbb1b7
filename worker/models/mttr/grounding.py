"""MTTR in place with its tokenizer: what `encode` is handed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import RobertaTokenizer

from worker.encoders.placed import Placed
from worker.encoders.roberta import tokens
from worker.models.mttr.config import QUERIES_KEPT
from worker.models.mttr.network import MTTR


@dataclass(frozen=True, slots=True)
class Grounding:
    """The network that finds in a film what a sentence names.

    Args:
        placed: the network.
        tokenizer: of its text encoder.
    """

    placed: Placed[MTTR]
    tokenizer: RobertaTokenizer
    _words: OrderedDict[str, Tensor] = field(default_factory=OrderedDict)

    def words(self, query: str) -> Tensor:
        """What the text encoder makes of a query, (1, L, 256) on the device; always in fp32, once for each sentence.

        Raises:
            InvalidRequest: the query has more tokens than the network has positions for.
        """
        sentence = tidied(query)
        if sentence not in self._words:
            ids_1L = torch.tensor([tokens(self.tokenizer, sentence)], device=self.placed.device)
            with self.placed.computing("fp32"):
                self._words[sentence] = self.placed.network.read(ids_1L, torch.ones_like(ids_1L))
            while len(self._words) > QUERIES_KEPT:
                self._words.popitem(last=False)
        self._words.move_to_end(sentence)
        return self._words[sentence]


def tidied(query: str) -> str:
    """Lower case, and one space wherever there was any: as the network was trained."""
    return " ".join(query.lower().split())
