"""Jobs: create, plan their runs, list, cancel, retry, delete; and the rule of their state."""
