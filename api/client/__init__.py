"""A client of the HTTP API, and the command `sceneworks` built on it. Nothing of the server is imported here."""
