"""Losses, the loop, what is fixed after it."""
