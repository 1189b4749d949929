"""A call of a class says which method it is of.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Calls made before there were classes have none."""
    op.add_column("calls", sa.Column("method", sa.String, nullable=False, server_default=""))
