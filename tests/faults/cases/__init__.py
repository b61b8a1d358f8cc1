"""The cases, one for each row of the table in docs/explanation/reliability.md."""
