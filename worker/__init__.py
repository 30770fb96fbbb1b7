"""One process, one network, one queue."""
