"""`rmap.lab.replay`: recorded programs played on the model."""
