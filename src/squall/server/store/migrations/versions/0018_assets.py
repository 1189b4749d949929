"""Assets: volumes, dicts, queues and secrets, whatever is in them.

Revision ID: 0018
Revises: 0017
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """There were none."""
    op.create_table(
        "assets",
        sa.Column("asset_id", sa.String, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("name", sa.String),
        sa.Column("environment", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.UniqueConstraint("kind", "environment", "name", name="assets_by_name"),
    )
    op.create_index("assets_by_age", "assets", ["kind", "environment", "created_at", "asset_id"])
    op.create_index("assets_by_owner", "assets", ["owner"])
    op.create_table(
        "asset_garbage",
        sa.Column("asset_id", sa.String, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
    )
