"""Results and neighbours as CSV (RFC 4180), with exact times."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from typing import Any, TextIO

from api.client.http import JsonObject

TIME_COLUMNS = [(end, name) for end in ("start", "end") for name in ("frame", "seconds", "pts", "timecode")]
TIME_TITLES = [f"{end}_{name}" for end, name in TIME_COLUMNS]


def write_results_csv(results: Iterable[JsonObject], file: TextIO) -> None:
    """Write results as they come; `data` is JSON.

    The service has `format=csv` too, but with other columns and escapes: scripts that read this output would break.
    """
    writer = csv.writer(file)
    writer.writerow(["model", "kind", "seq", *TIME_TITLES, "score", "data"])
    for result in results:
        row = [result.get("model"), result["kind"], result["seq"], *_get_time_cells(result), result["score"]]
        writer.writerow([*row, json.dumps(result["data"])])


def write_similar_csv(items: Iterable[JsonObject], file: TextIO) -> None:
    """Write the neighbours of a search, most similar first."""
    writer = csv.writer(file)
    writer.writerow(["similarity", "video_id", "name", "run_id", "seq", *TIME_TITLES])
    for item in items:
        video = item["video"]
        row = [item["similarity"], video["id"], video["name"], item["run_id"], item["seq"]]
        writer.writerow([*row, *_get_time_cells(item)])


def _get_time_cells(record: JsonObject) -> list[Any]:
    """A record of a whole video has no times: its cells stay empty."""
    return [(record[end] or {}).get(name) for end, name in TIME_COLUMNS]
