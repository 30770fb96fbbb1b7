"""Neighbours of a search as a table."""

from __future__ import annotations

from rich.table import Table

from api.client.http import JsonObject


def build_similar_table(answer: JsonObject) -> Table:
    """Build a table of neighbours, most similar first, captioned with what was not compared."""
    table = Table(header_style="bold", caption=_format_comparison(answer))
    table.add_column("similarity", justify="right")
    for title in ("video", "name"):
        table.add_column(title, overflow="fold")
    for title in ("#", "start", "end", "start s", "end s"):
        table.add_column(title, justify="right")
    for item in answer["items"]:
        video = item["video"]
        table.add_row(f"{item['similarity']:.4f}", video["id"], video["name"], *_format_range_cells(item))
    return table


def _format_range_cells(item: JsonObject) -> list[str]:
    """A whole video has neither a number nor times."""
    start, end = item["start"], item["end"]
    if not start:
        return []
    times = [start["timecode"], end["timecode"], f"{start['seconds']:.3f}", f"{end['seconds']:.3f}"]
    return [str(item["seq"]), *times]


def _format_comparison(answer: JsonObject) -> str:
    """The weights by which videos were compared, and how many videos have no embeddings of that kind."""
    whole_video, excluded = answer["per"] == "video", answer["left_out"]
    parts = [f"{answer['model']} {answer['weights']['fingerprint'][:12]}"]
    if excluded["other_weights"]:
        parts.append(f"left out, with other weights: {excluded['other_weights']}")
    if excluded["other_per"]:
        parts.append(f"left out, embedded {'per shot' if whole_video else 'as a whole'} only: {excluded['other_per']}")
    return "; ".join(parts)
