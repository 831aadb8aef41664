"""From a trained model and new patches to predictions."""
