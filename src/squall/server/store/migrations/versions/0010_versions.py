"""Versions of deployed apps.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """No server before this one deployed anything."""
    op.create_table(
        "versions",
        sa.Column("app_id", sa.String, sa.ForeignKey("apps.app_id"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("deployed_at", sa.Float, nullable=False),
        sa.Column("deploy_id", sa.String, nullable=False),
        sa.Column("strategy", sa.String, nullable=False),
        sa.Column("tag", sa.String, nullable=False),
        sa.Column("client_version", sa.String, nullable=False),
        sa.Column("deployed_by", sa.String, nullable=False),
        sa.Column("git_commit", sa.Text, nullable=False),
        sa.Column("restored_version", sa.Integer, nullable=False),
        sa.Column("function_count", sa.Integer, nullable=False),
        sa.Column("image_ids", sa.Text, nullable=False),
        sa.Column("mount_ids", sa.Text, nullable=False),
        sa.Column("blob_sha256s", sa.Text, nullable=False),
        sa.Column("functions", sa.LargeBinary, nullable=False),
    )
    op.add_column("functions", sa.Column("pinned_version", sa.Integer, nullable=False, server_default="0"))
