"""What stands in `tools/`."""
