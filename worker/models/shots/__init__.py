"""The model of shots: where the camera cuts."""
