"""Videos: files and facts, the sources they come from, their history and the diff between runs."""
