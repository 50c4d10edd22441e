"""`rmap.lab.workloads`: what the comparisons run."""
