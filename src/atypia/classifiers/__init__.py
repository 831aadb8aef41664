"""Classifiers of mitotic figures: what they have in common, each kind of them, and their bundles.

Every classifier is a :class:`~atypia.classifiers.protocol.SubtypeModel`;
:func:`atypia.classifiers.loading.load_ensemble` loads any of them. All but
:mod:`~atypia.classifiers.ensemble` and :mod:`~atypia.classifiers.onnx_export` work without torch.
"""
