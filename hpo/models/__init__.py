"""Fitted surrogates of one trial log, and the predictions made from them."""
