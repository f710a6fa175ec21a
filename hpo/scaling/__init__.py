"""Scaling laws: transfer rules as priors, the fitted laws of loss and cost, allocation of compute."""
