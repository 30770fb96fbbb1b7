"""Batches: selection of videos, creation and dispatch, progress, events, schedules."""
