"""What this machine is, and what this user may see of it."""
