"""Weights that people bring: imported once from the files their authors published, then served as safetensors.

`<room>.safetensors` holds the tensors, `<room>.<name>` each file that serving needs beside them (such as the words of a
tokenizer), and `<room>.json`, the card, says what they are and where they come from. The fingerprint of the weights is
the hash of the tensors, or, where there are other files, of all hashes together: the same tensors and files always
give the same one. torch is imported by the functions that need it, so that `weights list` stays quick.

| file | what is in it |
|---|---|
| `declared.py` | what a room says of its published files |
| `card.py` | what lies beside imported weights |
| `importing.py` | from published files to tensors, side files and card |
| `serving.py` | from those to a room: verified, strict |
"""

from __future__ import annotations

from worker.encoders.published.card import Card, FileFacts, SourceFacts
from worker.encoders.published.declared import Published, Side, Source
from worker.encoders.published.importing import import_weights
from worker.encoders.published.serving import find_card, fingerprint, load_imported, side_files, verify_imported

__all__ = [
    "Card",
    "FileFacts",
    "Published",
    "Side",
    "Source",
    "SourceFacts",
    "find_card",
    "fingerprint",
    "import_weights",
    "load_imported",
    "side_files",
    "verify_imported",
]
