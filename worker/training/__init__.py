"""What rooms share when a model is judged: the metrics of the papers."""
