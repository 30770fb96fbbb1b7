"""Keyframes of a video: stored while it is read, and loaded later as the input of a network."""
