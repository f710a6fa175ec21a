"""Comparisons with rivals; only the public `hpo` and `surrogates` are used."""
