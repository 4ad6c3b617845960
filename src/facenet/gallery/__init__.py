"""The gallery: vectors and names become decisions with a known error rate."""
