"""WHO ASKS: what the kernel uses a reverse map for. Each consumer is a walk and what it does with the entries found."""
