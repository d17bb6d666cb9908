"""Instances as containers of Docker engines."""
