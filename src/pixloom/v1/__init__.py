"""Generated from protos/pixloom/v1 by `make proto`; never edited by hand."""
