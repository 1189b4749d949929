"""What waits of a function is found page by page, oldest first.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Of unfinished calls only: they are few beside those that are kept for their outputs."""
    is_unfinished = sa.text("unfinished_count > 0")
    op.create_index(
        "calls_waiting",
        "calls",
        ["function_id", "created_at", "call_id"],
        sqlite_where=is_unfinished,
        postgresql_where=is_unfinished,
    )
