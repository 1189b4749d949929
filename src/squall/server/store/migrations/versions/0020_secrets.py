"""What is in secrets.

Revision ID: 0020
Revises: 0019
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """There were none."""
    op.create_table(
        "secrets",
        sa.Column("secret_id", sa.String, primary_key=True),
        sa.Column("app_id", sa.String, nullable=False),
        sa.Column("names", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("nonce", sa.LargeBinary, nullable=False),
        sa.Column("ciphertext", sa.LargeBinary, nullable=False),
        sa.Column("content_mark", sa.String, nullable=False),
        sa.Column("kept_at", sa.Float, nullable=False),
        sa.Column("last_used_at", sa.Float),
    )
    op.create_index("secrets_by_content", "secrets", ["app_id", "content_mark"])
