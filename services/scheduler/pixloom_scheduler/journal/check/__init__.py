"""The invariants of the journal, verified on a live database: by statements where they can say it, by replay else."""
