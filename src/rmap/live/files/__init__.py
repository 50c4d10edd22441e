"""Files of the running machine: who maps them, who holds them open, what is cached."""
