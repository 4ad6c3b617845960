"""Whose faces are these? Vectors become clusters, under what a user has ruled."""
