"""Encoders by name: what they are, where their weights are, and how they become a backbone."""
