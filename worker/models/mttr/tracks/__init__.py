"""From what the network says of a window to tracks: masks, the choice of an instance, files and the overlay video."""
