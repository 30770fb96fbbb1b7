"""What two or more rooms share: pinned weights, and networks."""
