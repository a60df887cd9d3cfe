"""helm, built from its pinned Go modules."""
