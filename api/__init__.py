"""The thin HTTP side: rows in, JSON out, and the command line. Never tensors."""
