"""How fast the program is, side by side with kubectl on the same API server."""
