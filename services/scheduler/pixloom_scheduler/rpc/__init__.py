"""What the scheduler serves over gRPC."""
