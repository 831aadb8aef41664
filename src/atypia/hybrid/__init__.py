"""The hybrid: a network and the rules, joined by a small classifier."""

from atypia.hybrid.classifier import HybridClassifier
from atypia.hybrid.combiner import Combiner, feature_table

__all__ = ["Combiner", "HybridClassifier", "feature_table"]
