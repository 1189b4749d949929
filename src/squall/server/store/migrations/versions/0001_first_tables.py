"""First tables: apps, functions, mounts, durable calls with inputs and outputs, settings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "apps",
        sa.Column("app_id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("environment", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("stopped_at", sa.Float),
        sa.Column("tags", sa.Text, nullable=False),
    )
    op.create_index("apps_by_name", "apps", ["name", "environment"])
    op.create_index("apps_by_age", "apps", ["created_at"])
    op.create_table(
        "functions",
        sa.Column("function_id", sa.String, primary_key=True),
        sa.Column("app_id", sa.String, sa.ForeignKey("apps.app_id"), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("blob_sha256", sa.String, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.UniqueConstraint("app_id", "name", name="functions_by_name"),
    )
    op.create_table(
        "mounts",
        sa.Column("mount_id", sa.String, primary_key=True),
        sa.Column("manifest", sa.Text, nullable=False),
    )
    op.create_table(
        "settings",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    _create_calls()


def _create_calls() -> None:
    op.create_table(
        "calls",
        sa.Column("call_id", sa.String, primary_key=True),
        sa.Column("function_id", sa.String, nullable=False),
        sa.Column("app_id", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("parent_input_id", sa.String, nullable=False),
        sa.Column("input_count", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("unfinished_count", sa.Integer, nullable=False),
        sa.Column("finished_at", sa.Float, nullable=False),
    )
    op.create_index("calls_by_progress", "calls", ["unfinished_count", "finished_at"])
    op.create_table(
        "inputs",
        sa.Column("call_id", sa.String, sa.ForeignKey("calls.call_id"), primary_key=True),
        sa.Column("input_index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("blob_sha256", sa.String, nullable=False),
    )
    op.create_table(
        "outputs",
        sa.Column("call_id", sa.String, sa.ForeignKey("calls.call_id"), primary_key=True),
        sa.Column("input_index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("blob_sha256", sa.String, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("run_us", sa.Integer, nullable=False),
        sa.Column("finished_at", sa.Float, nullable=False),
    )
