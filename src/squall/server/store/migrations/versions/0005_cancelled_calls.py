"""A call that was cancelled stays so, whatever happens before its inputs have ended.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Of the calls that are there, none is known to be."""
    column = sa.Column("is_cancelled", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("calls", column)
