"""Measures, intervals and comparisons from tables of predictions alone; never torch."""
