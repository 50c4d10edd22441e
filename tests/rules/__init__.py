"""Stories by the number of their rule in `docs/rules.md`: told to the model, and to real processes beside it."""
