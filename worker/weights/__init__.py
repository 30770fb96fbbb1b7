"""Weights that users bring: imported once from the published files, then served as safetensors.

`<model>.safetensors` holds the tensors, `<model>.<name>` each file that serving needs beside them (such as the words of
a tokenizer), and `<model>.json`, the card, says what they are and where they come from. The fingerprint of the weights
is the hash of the tensors, or, where there are other files, of all hashes together: the same files always give the
same one. torch is imported by the functions that need it, so that `weights list` stays quick.

| file | what is in it |
|---|---|
| `declared.py` | what a model says of its published files |
| `card.py` | what lies beside imported weights |
| `importing.py` | from published files to tensors, side files and card |
| `serving.py` | from those to a model: verified, strict |
"""

from __future__ import annotations

from worker.weights.card import FileFacts, SourceFacts, WeightsCard
from worker.weights.importer import import_weights
from worker.weights.loader import compute_fingerprint, find_card, find_side_files, load_imported, verify_imported
from worker.weights.manifest import SideFile, TensorFile, WeightsManifest

__all__ = [
    "FileFacts",
    "SideFile",
    "SourceFacts",
    "TensorFile",
    "WeightsCard",
    "WeightsManifest",
    "compute_fingerprint",
    "find_card",
    "find_side_files",
    "import_weights",
    "load_imported",
    "verify_imported",
]
