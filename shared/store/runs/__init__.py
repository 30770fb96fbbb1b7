"""Runs as workers see them: claims under a fence, the sweep, the queues."""
