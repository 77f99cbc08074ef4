"""Choosing post-processing on the validation split."""
