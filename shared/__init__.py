"""Vocabulary and store of Sceneworks: no tensors, no HTTP."""
