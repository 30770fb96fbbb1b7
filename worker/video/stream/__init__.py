"""Read a video stream: containers, packets, decoders. `reader` and `probe` build on it."""
