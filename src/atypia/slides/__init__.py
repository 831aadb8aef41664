"""Slides and other source images: what they are, and how their pixels are read."""

from atypia.slides.reader import Slide, SlideInfo, open_slide

__all__ = ["Slide", "SlideInfo", "open_slide"]
