"""Alembic migrations of the tuning log. One file per schema version, never edited once released."""
