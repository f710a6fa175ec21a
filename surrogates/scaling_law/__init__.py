"""Scaling-law surrogate: a parametric loss over scales and a Gaussian process for its error."""
