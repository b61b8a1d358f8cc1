"""The built-in ops: every module in this package is loaded by the registry."""
