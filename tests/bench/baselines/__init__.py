"""The ways of the published pipelines, rendered plainly in code of our own: what `bench` measures the rooms against.

Each takes the steps that its pipeline takes, one picture and one question at a time, in fp32, channels first.
"""
