"""Run by Alembic: migrations go over the connection that the store passes, in its transaction."""

from __future__ import annotations

from alembic import context

from squall.server.store.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
context.run_migrations()
