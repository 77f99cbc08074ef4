"""Hepar's core: data -> train -> infer -> measure -> report. Never imports plugins."""
