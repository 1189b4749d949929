"""Environments besides the default.

Revision ID: 0015
Revises: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What there is has no name of an environment: it is in the default."""
    op.create_table(
        "environments",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("created_at", sa.Float, nullable=False),
    )
