"""The gRPC side: calls passed on to the scheduler, items and artifacts served from the object store."""
