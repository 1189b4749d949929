"""Versions of volumes, and the directories that they share.

Revision ID: 0019
Revises: 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """There were none."""
    op.create_table(
        "volume_versions",
        sa.Column("volume_id", sa.String, primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("root", sa.String, nullable=False),
        sa.Column("commit_id", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("cause", sa.String, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.Column("entry_count", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("put_count", sa.BigInteger, nullable=False),
        sa.Column("removed_count", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("volume_id", "commit_id", name="volume_versions_by_commit"),
    )
    op.create_table(
        "volume_retentions",
        sa.Column("volume_id", sa.String, primary_key=True),
        sa.Column("retention", sa.Text, nullable=False),
    )
    op.create_table(
        "volume_nodes",
        sa.Column("sha256", sa.String, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "volume_node_blocks",
        sa.Column("node_sha256", sa.String, primary_key=True),
        sa.Column("block_sha256", sa.String, primary_key=True),
    )
    op.create_index("volume_node_blocks_by_block", "volume_node_blocks", ["block_sha256"])
