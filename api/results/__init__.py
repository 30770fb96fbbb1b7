"""What runs yield: results in many formats, artifacts as files."""
