"""The tests: a folder for each package of rmap; stories by the number of their rule in `rules`; searches in `model`."""
