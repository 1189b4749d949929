"""Variants are found by the function they are of, and minutes of functions, too.

Revision ID: 0016
Revises: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What minutes of variants are of, as far as the variants are still known."""
    op.create_index("variants_by_base", "variants", ["base_id", "used_at"])
    op.add_column("function_minutes", sa.Column("base_id", sa.String, nullable=False, server_default=""))
    base_of = "SELECT base_id FROM variants WHERE variants.function_id = function_minutes.function_id"
    op.execute(sa.text(f"UPDATE function_minutes SET base_id = COALESCE(({base_of}), '')"))
    op.create_index("function_minutes_by_base", "function_minutes", ["base_id", "began_at"])
