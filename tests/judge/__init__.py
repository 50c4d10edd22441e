"""The judge from outside: the same calls made by the model and by real processes, compared after every step."""
