"""Measuring: plans, runs in turn with others, rows."""
