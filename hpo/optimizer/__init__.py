"""Ask and tell: from fitted models to the next config, and to the result."""
