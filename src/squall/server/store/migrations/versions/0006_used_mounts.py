"""Mounts that nothing has used for long are forgotten.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Of the mounts that are there it is not known: they count as used now."""
    op.add_column("mounts", sa.Column("used_at", sa.Float, nullable=False, server_default="0"))
    now = time.time()  # tidy: wall clock, what the store keeps is compared with that of later servers
    op.get_bind().execute(sa.text("UPDATE mounts SET used_at = :now"), {"now": now})
