"""What runs yield: results in many forms, artifacts as files."""

from api.results import routes
from api.results.files import bp

__all__ = ["bp", "routes"]
