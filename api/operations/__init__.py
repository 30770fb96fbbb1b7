"""The service itself: what it serves, on what it stands, and whether it is well."""
