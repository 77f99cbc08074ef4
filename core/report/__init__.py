"""Figures and tables of an evaluation."""
