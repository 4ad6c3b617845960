"""Models: a name becomes a checked file becomes a running engine."""
