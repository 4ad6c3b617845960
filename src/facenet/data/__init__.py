"""Data: files become samples, pairs and people. No network is seen here."""
