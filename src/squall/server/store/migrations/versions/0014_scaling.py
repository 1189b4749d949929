"""What the autoscaler of a function goes by may be changed while it runs, and is kept until the next deploy.

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing had been changed."""
    op.create_table(
        "scaling",
        sa.Column("function_id", sa.String, primary_key=True),
        sa.Column("app_id", sa.String, sa.ForeignKey("apps.app_id"), nullable=False),
        sa.Column("scaling", sa.Text, nullable=False),
    )
    op.create_index("scaling_by_app", "scaling", ["app_id"])
