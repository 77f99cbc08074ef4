"""Scans: files, the store, splits, batches."""
