"""Pictures out of a film: kept while it is read, and seen by a network later."""
