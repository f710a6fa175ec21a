"""Predictive models on arrays: they know columns and numbers, never search spaces or trials."""
