"""Apps: arguments become calls become output. No arithmetic here."""
