"""Evaluation: samples and a callable that embeds become numbers."""
