"""Models joined: a network and the rules by a small classifier; several models by any join."""

from atypia.hybrid.classifier import HybridClassifier
from atypia.hybrid.combiner import Combiner, feature_table
from atypia.hybrid.stack import StackClassifier

__all__ = ["Combiner", "HybridClassifier", "StackClassifier", "feature_table"]
