"""Faces: an image becomes boxes, landmarks, crops and vectors."""
