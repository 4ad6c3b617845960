"""What other systems run in their own Python; see `worker`."""
