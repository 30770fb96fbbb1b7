"""The whole system on one machine: real servers from wheels, and every process as a watched child."""
