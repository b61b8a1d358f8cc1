"""Postgres, the truth: tables, the group commit, loading and reading. Nothing else imports SQLAlchemy or asyncpg."""
