"""Scaling: transfer rules as priors, fitted laws of loss and cost, allocation of compute."""
