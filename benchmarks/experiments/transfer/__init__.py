"""How much a search gains from runs of other tasks, and what unrelated tasks cost it."""
