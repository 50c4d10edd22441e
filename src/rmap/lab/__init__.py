"""EXPERIMENTS: workloads, comparisons of designs, and stories, told by the model kernel as plain data.

Everything here drives :class:`rmap.kernel.Kernel` and fills the classes of :mod:`rmap.lab.results`; ``rmap.show``
turns those into text.
"""
