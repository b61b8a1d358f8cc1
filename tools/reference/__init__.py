"""Generates docs/reference from the tables, schemas and comments that the code itself uses.

Every page is a function without arguments that returns text and depends on nothing but the code, so that a test can
compare what is committed with what would be written.
"""
