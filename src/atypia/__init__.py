"""Atypia: subtype mitotic figures in H&E histology.

The story of the package is told in :mod:`atypia.pipeline`; the eight subtypes and their order are
in :mod:`atypia.labels`. Importing this package loads neither torch nor pandas.
"""

__version__ = "0.1.0"
