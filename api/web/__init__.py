"""The pages: jobs, one job with its video, and the operator's pages, as HTML that reads without scripts."""

from api.web.operator import bp as operate
from api.web.pages.routes import bp

bp.register_blueprint(operate)

__all__ = ["bp"]
