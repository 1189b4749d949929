"""Under which id the rows are that are in an asset: another one each time it is cleared.

Revision ID: 0023
Revises: 0022
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """So far they are under that of the asset."""
    op.add_column("assets", sa.Column("content_id", sa.String, nullable=False, server_default=""))
    op.execute(sa.text("UPDATE assets SET content_id = asset_id"))
