"""Apps made inside containers remember the apps above them.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Every app there is was made outside."""
    op.add_column("apps", sa.Column("ancestors", sa.Text, nullable=False, server_default="[]"))
    op.add_column("apps", sa.Column("root_app_id", sa.String, nullable=False, server_default=""))
    op.create_index("apps_by_root", "apps", ["root_app_id"])
