"""The one place that runs commands and asks the host questions."""
