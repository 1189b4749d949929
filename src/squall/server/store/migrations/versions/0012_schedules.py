"""When functions with a schedule are due, and what became of their last run.

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """No server before this one followed a schedule: there is nothing to take over."""
    op.create_table(
        "schedules",
        sa.Column("function_id", sa.String, primary_key=True),
        sa.Column("schedule", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("began_at", sa.Float, nullable=False),
        sa.Column("next_at", sa.Float),
        sa.Column("last_at", sa.Float),
        sa.Column("last_call_id", sa.String, nullable=False),
        sa.Column("last_outcome", sa.String, nullable=False),
        sa.Column("skipped_count", sa.Integer, nullable=False),
    )
