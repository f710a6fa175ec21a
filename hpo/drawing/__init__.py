"""Figures and HTML pages from arrays and plain values; nothing here knows a study."""
