"""The rules: subtypes by named, published criteria of shape, without learning.

``stain`` separates the haematoxylin, ``chromatin`` finds the figure in it, ``measures`` measures
it, ``criteria`` says what each subtype looks like, and ``reading`` puts one figure's measures and
criteria into words.
"""
