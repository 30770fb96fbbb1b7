"""Vocabulary and ledger of Sceneworks: no tensors, no HTTP."""
