"""Hepar's own components, one folder a kind."""
