"""The checks themselves, a module for each theme; how they are run stands one level up."""
