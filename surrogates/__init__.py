"""Predictive models on arrays: they know columns and numbers, never names, search spaces or trials."""
