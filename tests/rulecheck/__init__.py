"""A checker of Prometheus rules for the tests, built from pinned Go modules."""
