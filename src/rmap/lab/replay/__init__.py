"""Replaying a recorded program in the model, and holding the model against the recorded kernel."""
