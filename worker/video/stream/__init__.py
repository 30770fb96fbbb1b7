"""How a film is read: containers, packets, decoders. Made use of by `reader` and `probe`."""
