"""Fetch a public data set."""

from atypia.data.archives import download

__all__ = ["download"]
