"""Baselines for the bench: the steps of the published pipelines, in plain code of our own.

Each takes the steps that its pipeline takes, one frame and one query at a time, in fp32, channels first.
"""
