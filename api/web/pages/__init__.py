"""Pages of jobs: submit, list, one job with its video and results."""
