"""Inputs may run for longer than 36 minutes, the most that an integer of PostgreSQL has in microseconds.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """SQLite's integers have 64 bits."""
    if op.get_bind().dialect.name != "sqlite":
        op.alter_column("outputs", "run_us", type_=sa.BigInteger, existing_type=sa.Integer, existing_nullable=False)
