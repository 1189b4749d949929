"""Queues: what is in them.

Revision ID: 0022
Revises: 0021
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """There were none."""
    op.create_table(
        "queues",
        sa.Column("queue_id", sa.String, primary_key=True),
        sa.Column("partition_count", sa.Integer, nullable=False),
    )
    op.create_table(
        "queue_partitions",
        sa.Column("queue_id", sa.String, primary_key=True),
        sa.Column("partition", sa.LargeBinary, primary_key=True),
        sa.Column("next_number", sa.BigInteger, nullable=False),
        sa.Column("item_count", sa.Integer, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
    )
    op.create_index("queue_partitions_by_expiry", "queue_partitions", ["expires_at"])
    op.create_table(
        "queue_items",
        sa.Column("queue_id", sa.String, primary_key=True),
        sa.Column("partition", sa.LargeBinary, primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
