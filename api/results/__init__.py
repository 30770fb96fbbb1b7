"""What runs yield: results in many forms, artifacts as files."""

from api.results import routes
from api.results.artifacts import bp

__all__ = ["bp", "routes"]
