"""The scheduler: owns definitions and job state in Postgres, decides, and publishes ready work."""
