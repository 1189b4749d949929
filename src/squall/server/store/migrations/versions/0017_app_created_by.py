"""Who made an app.

Revision ID: 0017
Revises: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Of what there is, nobody knows."""
    op.add_column("apps", sa.Column("created_by", sa.String, nullable=False, server_default=""))
