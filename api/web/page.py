"""The page: jobs, and one job with its film, as HTML; a key as a cookie.

Everything is drawn once, by the templates beside this file. The scripts in `static/` fetch the page again and take over
what has changed, so nothing is drawn in two places. Without scripts the page can still be read, and jobs be cancelled,
retried and deleted.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apiflask import APIBlueprint
from flask import Response, g, redirect, render_template, request, send_from_directory

from api import jobs as job_routes
from api.errors import KEY_COOKIE, open_to_all, page, read_token
from api.service.health import services
from api.web.film import film, scenes
from api.web.forms import blanks
from api.web.likeness import like
from api.web.masks import masks
from api.web.summary import summary
from api.web.words import FILTERS, facts
from shared.catalog import MENU
from shared.errors import InvalidRequest, NotFound
from shared.store import jobs, results, videos, workers

WEB = Path(__file__).parent
STATIC = WEB / "static"
bp = APIBlueprint("page", __name__, template_folder=str(WEB / "templates"), enable_openapi=False)

JOBS = 20
"""On one page of the list."""
LONGEST_KEY = 512
SCRIPTS_AND_STYLE = (
    "page.css", "film.css", "page.js", "live.js", "submit.js", "player.js", "film.js", "scenes.js", "summary.js",
    "tracks.js", "masks.js", "likeness.js",
)  # fmt: skip
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
VERBS = {"cancel": job_routes.cancel, "retry": job_routes.retry, "delete": job_routes.delete}


@bp.get("/")
def index() -> str:
    """A form for a film, and the jobs, newest first."""
    engine = services().engine
    after = read_token("jobs", request.args.get("page_token"), (datetime, str))
    found = jobs.page(engine, limit=JOBS + 1, after=after)
    items, older, _ = page("jobs", found, JOBS, lambda job: (job.created_at, job.id))
    films = videos.several(engine, [job.video_id for job in items])
    heard = workers.all(engine)
    return render_template(
        "jobs.html",
        jobs=[(job, films[job.video_id]) for job in items if job.video_id in films],
        older=older,
        first=after is None,
        menu=[(spec, blanks(spec)) for spec in MENU.values()],
        unserved=[spec.title for spec in MENU.values() if not any(worker.serves(spec.name) for worker in heard)],
    )


@bp.get("/jobs/<job_id>")
def show(job_id: str) -> str:
    """One job: how it stands, its film with what was found in it, its files, where they come from."""
    engine = services().engine
    job = jobs.get(engine, job_id)
    video = videos.get(engine, job.video_id)
    files = results.artifacts(engine, job_id)
    only_shots = "after" in request.args  # the rest of a long strip
    return render_template(
        "job.html",
        job=job,
        stored=video,
        offset=float(video.video.start_time - video.video.container_start_time),
        facts=facts(video),
        menu=MENU,
        files=files,
        film=film(job, files),
        scenes=None if only_shots else scenes(job),
        summary=None if only_shots else summary(job, files),
        masks=None if only_shots else masks(job, files),
        like=None if only_shots else like(job),
    )


@bp.post("/jobs/<job_id>/<verb>")
def act(job_id: str, verb: str) -> Response:
    """Cancel, retry or delete a job, as the API does, and go where its state can be seen."""
    if verb not in VERBS:
        raise NotFound("There is nothing at this address.")
    VERBS[verb](job_id)
    return _to("/" if verb == "delete" else f"/jobs/{job_id}")


@bp.post("/sign-in")
@open_to_all
def sign_in() -> Response:
    """Keep the key as a cookie that no script can read; the door looks at it with the next request."""
    key = request.form.get("key", "").strip()
    if not key.isascii() or not key.isprintable() or len(key) > LONGEST_KEY:
        raise InvalidRequest(f"A key has at most {LONGEST_KEY} characters, all of them printable ASCII.")
    response = _to(_own_place(request.form.get("next", "/")))
    response.set_cookie(KEY_COOKIE, key, httponly=True, samesite="Strict", secure=request.is_secure)
    return response


@bp.post("/sign-out")
@open_to_all
def sign_out() -> Response:
    """Forget the key."""
    response = _to("/")
    response.delete_cookie(KEY_COOKIE, httponly=True, samesite="Strict", secure=request.is_secure)
    return response


@bp.get("/web/<name>")
@open_to_all
def asset(name: str) -> Response:
    """Style and scripts."""
    if name not in SCRIPTS_AND_STYLE:
        raise NotFound("There is no such file.")
    return send_from_directory(STATIC, name)


@bp.after_request
def dress(response: Response) -> Response:
    """Problems as HTML, a strict content policy, and 304 for a page that is as it was."""
    if response.mimetype == "application/problem+json":
        said = json.loads(response.get_data())
        response.set_data(render_template("problem.html", problem=said, tried=KEY_COOKIE in request.cookies))
        response.mimetype = "text/html"
    if response.mimetype == "text/html":
        response.headers["Content-Security-Policy"] = POLICY
        response.vary.add("Cookie")
    if request.method == "GET" and response.status_code == 200 and response.mimetype == "text/html":
        response.add_etag()
        response.make_conditional(request.environ)
    return response


@bp.context_processor
def words() -> dict[str, Any]:
    """What every template may say."""
    return {"signed_in": bool(g.get("key")) and KEY_COOKIE in request.cookies, "now": datetime.now(UTC)}


def _to(place: str) -> Response:
    """Go on with a GET there."""
    response = redirect(place, 303)
    assert isinstance(response, Response)  # noqa: S101 (Flask makes it of its own class)
    return response


def _own_place(wanted: str) -> str:
    """The address if it is a path on this site, else the start: nobody is sent elsewhere after signing in."""
    local = wanted.startswith("/") and not wanted.startswith("//") and "\\" not in wanted and wanted.isprintable()
    return wanted if local else "/"


for _name, _word in FILTERS.items():
    bp.add_app_template_filter(_word, _name)
