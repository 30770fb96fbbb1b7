"""Every SQL statement, as verbs by noun. Each verb takes an engine first and is one transaction."""
