"""What comes behind the labels of an app's web functions while it is not deployed.

Revision ID: 0024
Revises: 0023
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Of what there is, the usual one."""
    op.add_column("apps", sa.Column("web_suffix", sa.String, nullable=False, server_default=""))
