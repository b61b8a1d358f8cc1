"""The executor: pulls ready work, runs its ops in child processes and reports the results."""
