"""What operators look at: metrics of the whole store, and failed runs with their retry."""
