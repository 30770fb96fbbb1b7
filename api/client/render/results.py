"""Results of a job as a table."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from api.client.http import JsonObject


def build_results_table(results: Iterable[JsonObject]) -> Table:
    """Build a table of results with exact times; ends are exclusive."""
    table = Table(header_style="bold", caption="End frames are exclusive.")
    for title in ("model", "kind", "#"):
        table.add_column(title)
    for title in ("start frame", "end frame", "start", "end", "start s", "end s", "length s", "score"):
        table.add_column(title, justify="right")
    table.add_column("data")
    for result in results:
        table.add_row(*_format_result_cells(result))
    return table


def _format_result_cells(result: JsonObject) -> list[str]:
    start, end = result["start"], result["end"]
    times = ["", "", "", "", "", "", ""]
    if start and end:
        times = [
            str(start["frame"]), str(end["frame"]), start["timecode"], end["timecode"],
            f"{start['seconds']:.3f}", f"{end['seconds']:.3f}", f"{end['seconds'] - start['seconds']:.3f}",
        ]  # fmt: skip
    score = "" if result["score"] is None else f"{result['score']:.3f}"
    data = "  ".join(f"{name}={value}" for name, value in result["data"].items())
    return [result.get("model", ""), result["kind"], str(result["seq"]), *times, score, data]
