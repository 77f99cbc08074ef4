"""Evaluations: of a run, of two folders of label files, of a cross-validation; their parts and what they write."""
