"""What users write workflows and ops with."""
