"""THE RUNNING KERNEL: the machine under us, read from /proc and seen as a Snapshot.

Sources: Linux's fs/proc/{base,task_mmu,page}.c as documented in Documentation/admin-guide/mm/pagemap.rst (6.18).
"""
