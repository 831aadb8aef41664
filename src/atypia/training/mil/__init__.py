"""Multiple-instance learning: one answer for a patient from all of their figures.

A label is known for the patient alone (an outcome, a grade, a mutation); which of the figures
speaks for it is learned as well.
"""
