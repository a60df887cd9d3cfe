"""What is run by hand, not by pytest: the demo, the mutants, the pages and pictures of `docs`."""
