"""Krew and its manifest validator for the tests, built from pinned Go modules."""
