"""Processes of trials: what they send, what they leave, what they may use, their ranks."""
