"""Where and how a network computes: device, precision, placement."""
