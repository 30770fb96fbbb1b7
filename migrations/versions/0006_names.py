"""Stored words follow the public names: the stage postprocess, summary and overlay videos, videos of an outcome.

Finished clip_it runs keep their results; as the name of a parameter is part of a run's key, the same request makes a
new run once.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STAGES = """
    UPDATE runs SET stages = (
        SELECT jsonb_agg(CASE WHEN stage->>'name' = '{old}' THEN jsonb_set(stage, '{{name}}', '"{new}"') ELSE stage END
                         ORDER BY place)
        FROM jsonb_array_elements(stages) WITH ORDINALITY AS listed(stage, place)
    )
    WHERE stages @> '[{{"name": "{old}"}}]'
"""
KINDS = {"summary_film": "summary_video", "overlay_film": "overlay_video"}


def upgrade() -> None:
    """Apply."""
    op.execute(STAGES.format(old="decode", new="postprocess"))
    for old, new in KINDS.items():
        op.execute(f"UPDATE artifacts SET kind = '{new}' WHERE kind = '{old}'")
    _rename_outcome_key("films", "videos")
    _rename_clip_it_param("film", "summary_video")


def downgrade() -> None:
    """Undo."""
    op.execute(STAGES.format(old="postprocess", new="decode"))
    for old, new in KINDS.items():
        op.execute(f"UPDATE artifacts SET kind = '{old}' WHERE kind = '{new}'")
    _rename_outcome_key("videos", "films")
    _rename_clip_it_param("summary_video", "film")


def _rename_outcome_key(old: str, new: str) -> None:
    """`{"films": [{"state": .., "films": 3}]}`, the frozen counts of a batch that has ended."""
    op.execute(f"""
        UPDATE batches SET outcome = jsonb_build_object('{new}', (
            SELECT coalesce(jsonb_agg(
                (item - '{old}') || jsonb_build_object('{new}', item->'{old}') ORDER BY place), '[]')
            FROM jsonb_array_elements(outcome->'{old}') WITH ORDINALITY AS listed(item, place)
        ))
        WHERE outcome ? '{old}'
    """)


def _rename_clip_it_param(old: str, new: str) -> None:
    """In runs, and in the work that batches and schedules repeat."""
    op.execute(f"""
        UPDATE runs SET params = (params - '{old}') || jsonb_build_object('{new}', params->'{old}')
        WHERE model = 'clip_it' AND params ? '{old}'
    """)
    for table in ("batches", "schedules"):
        op.execute(f"""
            UPDATE {table} SET work = jsonb_set(work, '{{analyses}}', (
                SELECT coalesce(jsonb_agg(
                    CASE WHEN analysis->>'model' = 'clip_it' AND analysis->'params' ? '{old}'
                         THEN jsonb_set(analysis, '{{params}}', ((analysis->'params') - '{old}')
                              || jsonb_build_object('{new}', analysis->'params'->'{old}'))
                         ELSE analysis END ORDER BY place), '[]')
                FROM jsonb_array_elements(work->'analyses') WITH ORDINALITY AS listed(analysis, place)
            ))
            WHERE jsonb_path_exists(work, '$.analyses[*].params.{old}')
        """)
