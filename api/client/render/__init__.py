"""Records of the API as text for a terminal: one module for each noun."""
