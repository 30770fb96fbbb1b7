"""Films: opening, probing, reading, sampling and making them. Nothing here imports torch."""
