"""Searches over the whole model: every short sequence of calls, random ones, a state machine; and what they must find.

These belong to no package of rmap: each goes through `mm`, a design, the consumers and the kernel at once. `world` and
`player` make the calls, `canonical` says when two states are the same, `mutants`, `historical_bugs` and `detection` are
bugs put into the model and the stories that must notice them.
"""
