"""One module per command: its docstring is its help, ``configure`` its arguments, ``run`` what it does."""
