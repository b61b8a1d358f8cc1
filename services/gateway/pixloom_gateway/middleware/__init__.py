"""What every request passes before the routes: tracing, last resort for errors, origin checks, limits."""
