"""Smaller weights, by each framework's own tools, and a check of what they cost in accuracy."""
