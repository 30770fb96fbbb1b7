"""The pages of jobs as HTML: the list, and one job with its video. The API key is kept in a cookie.

Only the templates render. The scripts in `static/` fetch the page again and take over what has changed, so nothing is
rendered in two places. Without scripts the pages can be read, and jobs can be cancelled, retried and deleted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apiflask import APIBlueprint
from flask import Response, g, redirect, render_template, request, send_from_directory

from api.http.context import get_services
from api.http.paging import paginate_items, read_page_token
from api.http.problems import KEY_COOKIE, allow_anonymous
from api.jobs import service as job_service
from api.web.pages.filters import FILTERS, describe_video
from api.web.pages.forms import build_form_fields
from api.web.pages.masks import load_masks_view
from api.web.pages.search import load_search_view
from api.web.pages.shots import load_scenes_view, load_shots_view
from api.web.pages.summary import load_summary_view
from shared.catalog import CATALOG
from shared.errors import InvalidRequest, NotFound
from shared.store import results, workers
from shared.store.jobs import jobs
from shared.store.videos import videos

WEB_FOLDER = Path(__file__).parents[1]
STATIC_FOLDER = WEB_FOLDER / "static"
bp = APIBlueprint("page", __name__, template_folder=str(WEB_FOLDER / "templates"), enable_openapi=False)

JOBS_PER_PAGE = 20
"""On one page of the list."""
MAX_KEY_LENGTH = 512
STATIC_FILES = (
    "page.css", "shots.css", "main.js", "live_update.js", "submit_form.js", "player.js", "shots.js", "scenes.js",
    "summary.js", "mask_tracks.js", "masks.js", "search.js",
)  # fmt: skip
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
JOB_ACTIONS: dict[str, Callable[[str], Any]] = {
    "cancel": job_service.cancel_job, "retry": job_service.retry_job, "delete": job_service.delete_job,
}  # fmt: skip


@bp.get("/")
def show_jobs() -> str:
    """Show the form for a new job, and the jobs, newest first."""
    engine = get_services().engine
    after = read_page_token("jobs", request.args.get("page_token"), (datetime, str))
    rows = jobs.list_jobs(engine, limit=JOBS_PER_PAGE + 1, after=after)
    items, older, _ = paginate_items("jobs", rows, JOBS_PER_PAGE, lambda job: (job.created_at, job.id))
    stored_videos = videos.get_videos(engine, [job.video_id for job in items])
    known_workers = workers.list_workers(engine)
    return render_template(
        "jobs.html",
        jobs=[(job, stored_videos[job.video_id]) for job in items if job.video_id in stored_videos],
        older=older,
        first=after is None,
        menu=[(spec, build_form_fields(spec)) for spec in CATALOG.values()],
        unserved=[
            spec.title
            for spec in CATALOG.values()
            if not any(worker.serves_model(spec.name) for worker in known_workers)
        ],
    )


@bp.get("/jobs/<job_id>")
def show_job(job_id: str) -> str:
    """Show one job: its state, its video with the results, its files, their provenance."""
    engine = get_services().engine
    job = jobs.get_job(engine, job_id)
    video = videos.get_video(engine, job.video_id)
    files = results.list_artifacts(engine, job_id)
    only_shots = "after" in request.args  # the rest of a long strip
    return render_template(
        "job.html",
        job=job,
        stored=video,
        offset=float(video.facts.start_time - video.facts.container_start_time),
        facts=describe_video(video),
        menu=CATALOG,
        files=files,
        film=load_shots_view(job, files),
        scenes=None if only_shots else load_scenes_view(job),
        summary=None if only_shots else load_summary_view(job, files),
        masks=None if only_shots else load_masks_view(job, files),
        like=None if only_shots else load_search_view(job),
    )


@bp.post("/jobs/<job_id>/<verb>")
def act_on_job(job_id: str, verb: str) -> Response:
    """Cancel, retry or delete a job, as the API does, and go where its state can be seen."""
    if verb not in JOB_ACTIONS:
        raise NotFound("There is nothing at this address.")
    JOB_ACTIONS[verb](job_id)
    return _redirect_to("/" if verb == "delete" else f"/jobs/{job_id}")


@bp.post("/sign-in")
@allow_anonymous
def sign_in() -> Response:
    """Store the key in a cookie that no script can read; it is checked with the next request."""
    key = request.form.get("key", "").strip()
    if not key.isascii() or not key.isprintable() or len(key) > MAX_KEY_LENGTH:
        raise InvalidRequest(f"A key has at most {MAX_KEY_LENGTH} characters, all of them printable ASCII.")
    response = _redirect_to(_restrict_to_site(request.form.get("next", "/")))
    response.set_cookie(KEY_COOKIE, key, httponly=True, samesite="Strict", secure=request.is_secure)
    return response


@bp.post("/sign-out")
@allow_anonymous
def sign_out() -> Response:
    """Forget the key."""
    response = _redirect_to("/")
    response.delete_cookie(KEY_COOKIE, httponly=True, samesite="Strict", secure=request.is_secure)
    return response


@bp.get("/web/<name>")
@allow_anonymous
def send_asset(name: str) -> Response:
    """Style and scripts."""
    if name not in STATIC_FILES:
        raise NotFound("There is no such file.")
    return send_from_directory(STATIC_FOLDER, name)


@bp.after_request
def finish_html(response: Response) -> Response:
    """Render problems as HTML, add a strict content policy, and answer 304 for a page that has not changed."""
    if response.mimetype == "application/problem+json":
        problem = json.loads(response.get_data())
        response.set_data(render_template("problem.html", problem=problem, tried=KEY_COOKIE in request.cookies))
        response.mimetype = "text/html"
    if response.mimetype == "text/html":
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        response.vary.add("Cookie")
    if request.method == "GET" and response.status_code == 200 and response.mimetype == "text/html":
        response.add_etag()
        response.make_conditional(request.environ)
    return response


@bp.context_processor
def add_template_variables() -> dict[str, Any]:
    """Add the variables that every template may use."""
    return {"signed_in": bool(g.get("key")) and KEY_COOKIE in request.cookies, "now": datetime.now(UTC)}


def _redirect_to(location: str) -> Response:
    """Go on with a GET there."""
    response = redirect(location, 303)
    assert isinstance(response, Response)  # noqa: S101 (Flask makes it of its own class)
    return response


def _restrict_to_site(location: str) -> str:
    """Return the address if it is a path on this site, else `/`: an open redirect would help phishing."""
    local = (
        location.startswith("/") and not location.startswith("//") and "\\" not in location and location.isprintable()
    )
    return location if local else "/"


for _filter_name, _filter_function in FILTERS.items():
    bp.add_app_template_filter(_filter_function, _filter_name)
