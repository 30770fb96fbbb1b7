"""What two or more models share: pinned weights, and networks."""
