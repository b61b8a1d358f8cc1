"""gRPC as every part of Pixloom speaks it: servers, channels and how errors travel."""
