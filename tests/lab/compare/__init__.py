"""`rmap.lab.compare`: designs side by side, on workloads, snapshots and traces."""
