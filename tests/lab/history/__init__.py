"""`rmap.lab.history`: published figures."""
