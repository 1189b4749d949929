"""Which images were built, and what they are called.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Images built by an older server become known when they are asked for the next time."""
    op.create_table(
        "images",
        sa.Column("image_id", sa.String, primary_key=True),
        sa.Column("app_id", sa.String, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("layers", sa.Text, nullable=False),
        sa.Column("built_at", sa.Float, nullable=False),
        sa.Column("used_at", sa.Float, nullable=False),
    )
    op.create_index("images_by_use", "images", ["used_at"])
    op.create_table(
        "image_names",
        sa.Column("environment", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("tag", sa.String, primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("image_id", sa.String, nullable=False),
        sa.Column("published_at", sa.Float, nullable=False),
        sa.Column("is_current", sa.Boolean, nullable=False),
    )
    op.create_index("image_names_by_image", "image_names", ["image_id"])
