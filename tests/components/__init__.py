"""Real components beside which the tests run, built from pinned modules outside the tree."""
