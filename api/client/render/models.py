"""The catalog as a table."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from api.client.http import JsonObject


def build_models_table(models: Iterable[JsonObject]) -> Table:
    """Build a table of models with a row for each parameter."""
    table = Table(header_style="bold")
    for title in ("model", "parameter", "default", "meaning"):
        table.add_column(title)
    for model in models:
        table.add_row(f"[bold]{model['name']}", "", "", model["summary"])
        for name, field in model["params"].get("properties", {}).items():
            table.add_row("", name, str(field.get("default", "")), field.get("description", ""))
    return table
