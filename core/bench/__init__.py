"""Measuring speed: every figure is a ratio of two things timed in one run, in turns."""
