"""Videos as people: who was here, from when to when."""
