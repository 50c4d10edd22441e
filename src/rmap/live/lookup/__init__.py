"""One page of the running machine: who maps it."""
