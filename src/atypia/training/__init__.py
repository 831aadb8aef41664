"""From labelled patches to trained members."""
