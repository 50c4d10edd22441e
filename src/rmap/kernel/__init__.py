"""THE MACHINE: puts the model, a design and the consumers together.

The one place where they meet: :class:`Kernel` is the public face, :class:`Process` one of its processes, and the
state of both is a :class:`rmap.kernel.machine.Machine`. Pictures are loaded by ``adopt`` (a machine) and ``exec`` (an
address space), which make what they need by ``structure``, ``inodes`` and ``entries``.
"""

from __future__ import annotations

from rmap.kernel.kernel import Kernel
from rmap.kernel.process import OpenFile, Process, PteRef

__all__ = ["Kernel", "OpenFile", "Process", "PteRef"]
