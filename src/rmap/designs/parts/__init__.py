"""Bricks that several designs are built from. Designs never import each other; what they share lives here."""
