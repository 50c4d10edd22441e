"""A picture of the running machine: read, described, settled."""
