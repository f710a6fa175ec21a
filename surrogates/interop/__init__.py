"""Bridges to other libraries; each module imports its library, so import it only when needed."""
