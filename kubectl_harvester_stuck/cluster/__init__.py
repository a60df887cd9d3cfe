"""The API server: typed requests, and what to read for which question. It decides nothing."""
