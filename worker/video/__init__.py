"""Open, probe, read, sample and write videos. Nothing here imports torch."""
