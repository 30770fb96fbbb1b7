"""Batches: the same work on many videos; schedules that start them, reprocessing, events, differences."""
