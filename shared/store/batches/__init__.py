"""Archives in the ledger: sources, plans, batches, schedules, queues."""
