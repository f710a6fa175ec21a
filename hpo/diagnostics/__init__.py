"""Checks of a study or a training function before its answer is trusted."""
