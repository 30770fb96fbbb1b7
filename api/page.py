"""The page: jobs, and one job with its film, as HTML; a key as a cookie.

Everything is drawn once, by the templates in `web/`. The scripts beside them fetch the page again and take over what
has changed, so nothing is drawn in two places. Without scripts the page can still be read, and jobs be cancelled,
retried and deleted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from apiflask import APIBlueprint
from flask import Response, g, redirect, render_template, request, send_from_directory

from api import jobs as job_routes
from api.artifacts import EVERY_ROW, scene_runs
from api.errors import KEY_COOKIE, open_to_all, page, read_token
from api.health import services
from shared.catalog import MENU, ModelSpec
from shared.errors import InvalidRequest, NotFound
from shared.store import jobs, results, videos, workers
from shared.store.results import Found
from shared.values import Artifact, Job, Run, RunState, StoredVideo, Video

WEB = Path(__file__).parent / "web"
bp = APIBlueprint("page", __name__, template_folder=str(WEB), enable_openapi=False)

JOBS, SHOTS = 20, 300
"""On one page of the list, and of the filmstrip."""
LONGEST_KEY = 512
SCRIPTS_AND_STYLE = ("page.css", "page.js", "live.js", "submit.js", "film.js", "scenes.js")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
VERBS = {"cancel": job_routes.cancel, "retry": job_routes.retry, "delete": job_routes.delete}


@dataclass(frozen=True, slots=True)
class Blank:
    """One field of the form, from the JSON Schema of a parameter.

    Args:
        name: of the parameter.
        id: of the field, `model.parameter`.
        kind: `choice`, `number`, `integer`, `boolean`, `string`, `lines` (a list of strings) or `json` (the rest).
        value: the default as the field shows it; empty where there is none.
        limits: attributes `min`, `max`, `step`, `maxlength` of the field.
    """

    name: str
    id: str
    kind: str
    value: str
    hint: str
    options: tuple[str, ...]
    limits: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """One shot of the filmstrip; times are seconds since the first frame, the end exclusive."""

    number: int
    start: float
    end: float
    timecode: str
    frames: int
    pictures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Film:
    """A page of the shots of one run.

    Args:
        runs: every run of the job that has shots to show, this one included.
        more: address of the next page; None on the last.
        offset: what a player calls the first frame, in seconds.
    """

    run: Run
    runs: tuple[Run, ...]
    cells: tuple[Cell, ...]
    more: str | None
    offset: float


@dataclass(frozen=True, slots=True)
class Scenes:
    """The scenes of one run; `runs` are all that have some, this one included."""

    run: Run
    runs: tuple[Run, ...]
    rows: tuple[Found, ...]


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
    """One job: how it stands, its film with the shots, its files, where they come from."""
    engine = services().engine
    job = jobs.get(engine, job_id)
    video = videos.get(engine, job.video_id)
    files = results.artifacts(engine, job_id)
    return render_template(
        "job.html",
        job=job,
        stored=video,
        facts=_facts(video),
        menu=MENU,
        files=files,
        film=_film(job, video, files),
        scenes=None if "after" in request.args else _scenes(job),
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
    return send_from_directory(WEB, name)


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


def _film(job: Job, video: StoredVideo, files: Sequence[tuple[str, str, Artifact]]) -> Film | None:
    """The shots of the run asked for, or of the first that has some; None while there are none."""
    done = [run for run in job.runs if run.state is RunState.DONE and _has_shots(run)]
    wanted = request.args.get("run")
    run = next((run for run in done if wanted in {None, run.id}), None)
    if run is None:
        return None
    after = read_token("shots", request.args.get("after"), (int, str, int))
    found = results.page(services().engine, job.id, run_id=run.id, kind="shot", limit=SHOTS + 1, after=after)
    shots, token, _ = page("shots", found, SHOTS, lambda one: one.cursor)
    archive = next((file.id for run_id, _, file in files if (run_id, file.kind) == (run.id, "keyframes")), None)
    return Film(
        run=run,
        runs=tuple(done),
        cells=tuple(_cell(shot, archive) for shot in shots),
        more=f"/jobs/{job.id}?run={run.id}&after={token}" if token else None,
        offset=float(video.video.start_time - video.video.container_start_time),
    )


def _has_shots(run: Run) -> bool:
    return run.model in MENU and "shot" in MENU[run.model].results


def _scenes(job: Job) -> Scenes | None:
    """The scenes of the run asked for, or of the first that has some; None while there are none."""
    done = scene_runs(job)
    run = next((run for run in done if request.args.get("scenes") in {None, run.id}), None)
    if run is None:
        return None
    rows = results.page(services().engine, job.id, run_id=run.id, kind="scene", limit=EVERY_ROW)
    return Scenes(run, tuple(done), tuple(rows))


def _cell(found: Found, archive: str | None) -> Cell:
    """A shot with its keyframes, which have MovieNet's names."""
    shot, span = found.result, found.result.range
    if span is None:
        raise ValueError(f"shot {shot.seq} of {found.run_id} has no times")
    names = [f"shot_{shot.seq:04d}_img_{image}.jpg" for image in range(3)] if archive else []
    return Cell(
        number=shot.seq + 1,
        start=round(float(span.start.seconds), 6),
        end=round(float(span.end.seconds), 6),
        timecode=span.start.timecode,
        frames=span.frames,
        pictures=tuple(f"/v1/artifacts/{archive}/members/{name}" for name in names),
    )


def blanks(spec: ModelSpec) -> list[Blank]:
    """The fields of a form for the parameters of a model: a new model brings its own, and the page stays as it is."""
    schema = spec.params.model_json_schema()
    return [
        _blank(spec.name, name, _plain(field, schema.get("$defs", {})))
        for name, field in schema.get("properties", {}).items()
    ]


def _plain(field: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """The schema of one parameter without references, and without the null of an optional one."""
    for choice in field.get("anyOf", []):
        if choice != {"type": "null"}:
            return _plain(choice | {name: value for name, value in field.items() if name != "anyOf"}, defs)
    if "$ref" in field:
        target: dict[str, Any] = defs[field["$ref"].rpartition("/")[2]]
        return target | {name: value for name, value in field.items() if name != "$ref"}
    return field


def _blank(model: str, name: str, field: dict[str, Any]) -> Blank:
    kind, default = _kind(field), field.get("default")
    limits = {
        "min": field.get("minimum", field.get("exclusiveMinimum")),
        "max": field.get("maximum", field.get("exclusiveMaximum")),
        "step": {"integer": 1, "number": "any"}.get(kind),
        "maxlength": field.get("maxLength"),
    }
    return Blank(
        name=name,
        id=f"{model}.{name}",
        kind=kind,
        value=_shown(kind, default),
        hint=field.get("description", ""),
        options=tuple(str(option) for option in field.get("enum", [])),
        limits={attribute: limit for attribute, limit in limits.items() if limit is not None},
    )


def _kind(field: dict[str, Any]) -> str:
    if field.get("enum") and all(isinstance(option, str) for option in field["enum"]):
        return "choice"
    if field.get("type") == "array" and field.get("items", {}).get("type") == "string":
        return "lines"
    kind = field.get("type")
    return kind if kind in {"number", "integer", "boolean", "string"} else "json"


def _shown(kind: str, default: Any) -> str:
    """A default as the text of its field."""
    if default is None:
        return ""
    if kind == "lines":
        return "\n".join(default)
    return json.dumps(default) if kind in {"boolean", "json"} else str(default)


def _facts(stored: StoredVideo) -> list[tuple[str, str]]:
    """What is known of a video, as (name, words)."""
    video = stored.video
    tracks = [f"{a.codec}, {a.channels} ch, {a.sample_rate / 1000:g} kHz" for a in video.audio]
    facts = [
        ("Picture", f"{video.width} x {video.height}{_turned(video)}"),
        ("Codec", f"{video.codec}, {video.bit_depth} bit, in {video.container}"),
        ("Frame rate", f"{rate(video.clock.fps)}{', varying' if video.clock.vfr else ''}"),
        ("Duration", f"{lasting(video.duration)} ({video.frames:,} frames)"),
        ("Sound", "; ".join(tracks) or "none"),
        ("Size", size(stored.size)),
    ]
    return facts + ([("Damage", "cut off: the index speaks of more")] if video.truncated else [])


def _turned(video: Video) -> str:
    return f", turned by {video.rotation}°" if video.rotation else ""


@bp.app_template_filter("size")
def size(count: int) -> str:
    """Bytes for people."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


@bp.app_template_filter("lasting")
def lasting(seconds: float | Fraction) -> str:
    """A length of time: `0.52 s`, `8.3 s`, `2:05`, `1:02:05`."""
    exact = float(seconds)
    if exact < 59.95:
        return f"{exact:.2f} s" if exact < 1 else f"{exact:.1f} s"
    minutes, rest = divmod(round(exact), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


@bp.app_template_filter("remaining")
def remaining(seconds: float) -> str:
    """Time to go, without parts of a second: `18 s`, `2:05`."""
    return f"{math.ceil(seconds)} s" if seconds < 59 else lasting(seconds)


@bp.app_template_filter("grouped")
def grouped(number: float) -> str:
    """A number with its thousands apart."""
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:,.1f}"


@bp.app_template_filter("rate")
def rate(fps: Fraction) -> str:
    """`23.976 fps`."""
    return f"{float(fps):.6g} fps" if fps else "unknown"


@bp.app_template_filter("under_way")
def under_way(run: Run) -> dict[str, Any] | None:
    """The stage that a run is in."""
    return next((stage for stage in run.stages if stage["state"] == "running"), None)
