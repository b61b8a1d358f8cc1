"""Tracing: set-up, propagation, interceptors, and every span, metric and attribute name."""
