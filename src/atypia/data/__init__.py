"""Cohorts: reading, checking, splitting, augmenting and inventing them."""
