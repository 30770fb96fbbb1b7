"""The page: jobs, and one job with its film, as HTML that reads without scripts."""

from api.web.page import bp

__all__ = ["bp"]
