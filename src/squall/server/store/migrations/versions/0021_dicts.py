"""Dicts: what is in them, and what was taken out lately.

Revision ID: 0021
Revises: 0020
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """There were none."""
    op.create_table(
        "dict_entries",
        sa.Column("dict_id", sa.String, primary_key=True),
        sa.Column("key_hash", sa.LargeBinary, primary_key=True),
        sa.Column("put_id", sa.String, nullable=False),
        sa.Column("used_at", sa.Float, nullable=False),
        sa.Column("blob_sha256", sa.String, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    op.create_index("dict_entries_by_use", "dict_entries", ["used_at"])
    op.create_table(
        "asset_answers",
        sa.Column("asset_id", sa.String, primary_key=True),
        sa.Column("request_id", sa.String, primary_key=True),
        sa.Column("answered_at", sa.Float, nullable=False),
        sa.Column("blob_sha256", sa.String, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    op.create_index("asset_answers_by_age", "asset_answers", ["answered_at"])
    is_in_blob = sa.text("blob_sha256 <> ''")
    for table in ("dict_entries", "asset_answers"):
        op.create_index(
            f"{table}_in_blobs",
            table,
            ["blob_sha256"],
            sqlite_where=is_in_blob,
            postgresql_where=is_in_blob,
        )
