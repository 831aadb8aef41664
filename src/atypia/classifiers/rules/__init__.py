"""The rules: stain separation, segmentation, measures, fuzzy criteria; no network, no learning.

In order: :mod:`~.segmentation` finds the chromatin of a figure, :mod:`~.chromatin_shape` and
:mod:`~.shape_measures` measure it, :mod:`~.criteria` holds what each subtype looks like,
:mod:`~.shape_features` puts one figure's measures and truths together with a reason in words, and
:mod:`~.rules_classifier` is the model.
"""
