"""Variants of functions: with parameters, with other options, held to a version.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """There are none yet."""
    op.create_table(
        "variants",
        sa.Column("function_id", sa.String, primary_key=True),
        sa.Column("base_id", sa.String, nullable=False),
        sa.Column("app_id", sa.String, nullable=False),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("used_at", sa.Float, nullable=False),
    )
    op.create_index("variants_by_app", "variants", ["app_id", "version"])
    op.create_index("variants_by_use", "variants", ["used_at"])
    op.create_index("calls_by_function", "calls", ["function_id", "unfinished_count"])
