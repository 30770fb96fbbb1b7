"""Jobs: create, plan their runs, list, cancel, retry; their state; failures over all jobs."""
