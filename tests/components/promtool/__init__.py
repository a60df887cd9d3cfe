"""promtool for the tests, built from pinned Go modules."""
