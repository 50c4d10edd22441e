"""What stands in `benchmarks/`: that both sides do the same."""
