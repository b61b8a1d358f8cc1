"""Everything on one machine: PostgreSQL and NATS from wheels, and `pixloom up` that starts all parts.

`EmbeddedPostgres` and `EmbeddedNats` start one server process each inside a data directory; `LocalStack` adds the
services as child processes and supervises them. Nothing here asks for root, a compiler or a running database.
"""
