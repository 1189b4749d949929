"""What became of calls: who brought an output, attempts that failed, arguments of what failed, numbers of functions.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Of outputs that are there it is not known who brought them."""
    op.add_column("outputs", sa.Column("queued_at", sa.Float, nullable=False, server_default="0"))
    op.add_column("outputs", sa.Column("container_id", sa.String, nullable=False, server_default=""))
    op.create_index("calls_by_age", "calls", ["created_at"])
    op.create_table(
        "flights",
        sa.Column("call_id", sa.String, primary_key=True),
        sa.Column("function_id", sa.String, nullable=False),
        sa.Column("app_id", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("finished_at", sa.Float, nullable=False),
        sa.Column("is_failed", sa.Boolean, nullable=False),
        sa.Column("size_bytes", sa.Integer, nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("flights_by_age", "flights", ["finished_at"])
    op.create_table(
        "failed_inputs",
        sa.Column("call_id", sa.String, primary_key=True),
        sa.Column("input_index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("blob_sha256", sa.String, nullable=False),
        sa.Column("size_bytes", sa.Integer, nullable=False),
        sa.Column("kept_at", sa.Float, nullable=False),
    )
    op.create_index("failed_inputs_by_age", "failed_inputs", ["kept_at"])
    op.create_table(
        "function_minutes",
        sa.Column("function_id", sa.String, primary_key=True),
        sa.Column("began_at", sa.Float, primary_key=True),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("function_minutes_by_age", "function_minutes", ["began_at"])
