"""Alembic's revisions of the relay's tables; `store.server` runs them when a relay starts."""
