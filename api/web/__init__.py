"""The page: jobs, one job with its film, and the operator's pages, as HTML that reads without scripts."""

from api.web.operate import bp as operate
from api.web.page import bp

bp.register_blueprint(operate)

__all__ = ["bp"]
