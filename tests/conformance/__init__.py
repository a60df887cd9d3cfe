"""What the controllers do, beside what the program says of their finalizers: one line each.

Each module but `situation` and `cluster` is a table. See tests/test_conformance.py.
"""
