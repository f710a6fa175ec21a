"""The fitted surrogates of one trial log."""
