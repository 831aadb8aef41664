"""Networks that turn a patch into scores for the eight subtypes."""
