"""The room of shots: where the camera cuts."""
