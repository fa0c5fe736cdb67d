"""A policy -> text: one module a format, none of which sees a line of a list."""
