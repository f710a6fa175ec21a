"""Figures and HTML from arrays and plain values."""
