"""The gateway: REST and gRPC for everybody, passed on to the scheduler; it holds no state and decodes no image."""
