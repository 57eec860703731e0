"""Builds the family of images, and what follows from its description."""
