"""A picture for other tools."""
