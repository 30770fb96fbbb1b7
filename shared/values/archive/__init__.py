"""Work on many films: which, what, when, how it stands, and what changed by it."""
