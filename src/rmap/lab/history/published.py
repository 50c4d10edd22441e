"""What was published: who, when, on what machine, which figures. Facts; the sentences are ours.

``before`` and ``after`` of a :class:`Quoted` are what was published of two designs, or of one, in the same unit. What
cannot be compared says why.
"""

from __future__ import annotations

from dataclasses import dataclass

TIME = "a time on one machine, of one kernel"
NO_FIGURE = "no figure was published, or none could be read"


@dataclass(frozen=True, slots=True)
class Quoted:
    """One published figure that can be held against ours.

    Attributes:
        says: what was measured of what.
        before, after: the published values of the first and the second design; with one design, ``after`` alone.
        unit: of both.
        measure: which of ours, by its name in :data:`rmap.lab.history.ours.MEASURES`.
        exact: whether the value itself is to be met, and not only the direction.
        note: what to keep in mind when the two are held side by side.
    """

    says: str
    before: float | None
    after: float
    unit: str
    measure: str
    exact: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """One source.

    Attributes:
        id: J1 to J28.
        who, when: its author and date.
        source: the commit or mail.
        setup: machine and workload.
        said: the figures, in a sentence.
        figures: those that can be compared.
        why_not: why the rest cannot.
    """

    id: str
    who: str
    when: str
    source: str
    setup: str
    said: str
    figures: tuple[Quoted, ...] = ()
    why_not: str = ""


PUBLISHED = (
    Published("J1", "Andrew Morton", "July 2002", "3485c89197", "streaming I/O",
              "Reclaim by reverse map costs 3% more load than the virtual scan; its gains were not shown yet.",
              why_not=TIME),
    Published("J2", "Andrew Morton", "September 2002", "d5c8293240",
              "Anton Blanchard's ten thousand exiting shells; a kernel build on a 16-way NUMA-Q",
              "Blocks in the place of cells: the shells exit 3 to 4 times as fast, a build takes 10% less time.",
              (Quoted("shells that exit, cells to blocks", 3.5, 1.0, "times", "cells_to_blocks"),)),
    Published("J3", "Andrew Morton", "2 and 3 August 2002", "linux-kernel", "a script of forks on a 4-way PIII",
              "System time 70.0 to 71.7 s without a reverse map, 87.9 to 88.2 s with chains.",
              (Quoted("a fork script, no reverse map to chains", 70.9, 88.1, "s", "scan_to_chain_forks"),)),
    Published("J4", "Daniel Phillips, quoting A. Morton", "7 August 2002", "linux-kernel", "make -j6 on the same box",
              "System time 31.2 to 33.0 s: near parity.",
              (Quoted("a build, no reverse map to chains", 31.2, 33.0, "s", "scan_to_chain_build"),)),
    Published("J5", "Peter Wong (IBM)", "17 September 2002", "linux-mm", "a 100 GB decision-support run, 8-way Xeon",
              "22,817,885 mappings at the peak; 3,411,018 chain blocks of 32 bytes: 104 MB, in slabs of 118 MB.",
              (Quoted("chain blocks per thousand mappings", None, 149.49, "blocks", "blocks_per_mapping", True),
               Quoted("all blocks at the published size, live", None, 104.1, "MiB", "blocks_live_mib", True),
               Quoted("the same in slabs", None, 118.0, "MiB", "blocks_slab_mib", True))),
    Published("J6", "Andrew Morton", "April 2003", "7cb2b0f4b6", "shell scripts on a P4",
              "The index in the next word saves a quarter of the chains' time.", why_not=TIME),
    Published("J7", "Martin Bligh", "19 February 2003", "linux-mm", "kernbench and SDET on a 16-way NUMA-Q",
              "Partial objrmap: system time 112.76 to 98.29 s at -j32; page_remove_rmap 15,525 to 1,983 samples.",
              (Quoted("kernbench, chains to objrmap: system time", 112.76, 98.29, "s", "kernbench_steps"),
               Quoted("of it, ending a mapping", 15525, 1983, "samples", "kernbench_removal"))),
    Published("J8", "Martin Bligh", "20 February 2003", "linux-mm", "make -j256",
              "Chain blocks 24,116 to 716: what anonymous memory still needs.",
              (Quoted("chain blocks in a build, chains to objrmap", 24116, 716, "blocks", "kernbench_blocks"),)),
    Published("J9", "Andrew Morton", "22 February 2003", "linux-mm", "64 patches applied and removed, on a P4",
              "10.86 s with chains, 9.95 s with objrmap, 8.10 s under 2.4.",
              (Quoted("64 patches, chains to objrmap", 10.86, 9.95, "s", "patches_steps"),)),
    Published("J10", "Martin Bligh", "4 April 2003", "linux-mm", "kernbench, the difference of two profiles",
              "page_add_rmap 74.9% less, page_remove_rmap 92.0% less.",
              (Quoted("beginning a mapping, chains to objrmap", 100, 25.1, "%", "kernbench_adding"),
               Quoted("ending one", 100, 8.0, "%", "kernbench_removal"))),
    Published("J11", "Martin Bligh", "24 April 2003", "linux-mm", "SDET on a 16-way",
              "With objrmap 105.7 to 122.8% of the throughput with chains.",
              (Quoted("SDET at 64 scripts, chains to objrmap: work per script", 121.2, 100, "", "sdet_steps"),)),
    Published("J12", "Martin Bligh", "22 April 2003", "linux-mm", "page tables in high memory",
              "Chains of 8-byte pointers cost 110.69 to 118.34 s of system time.",
              why_not=TIME + "; HIGHPTE is not modelled"),
    Published("J13", "Andrew Morton", "5 April 2003", "linux-mm", "rmap-test on a P4, 256 MB",
              "System time, chains / objrmap by lists / 2.4: T1 86.91 / 1143.26 / 75.30 s; T2 6.05 / 2.10 / 2.03; "
              "T3 3.75 / 146.45 / 4.83.",
              (Quoted("T1, chains to lists", 86.91, 1143.26, "s", "t1_chain_to_list"),
               Quoted("T2, chains to lists", 6.05, 2.10, "s", "t2_chain_to_list"),
               Quoted("T3, chains to lists", 3.75, 146.45, "s", "t3_chain_to_list"))),
    Published("J14", "Andrew Morton", "April 2003", "linux-mm", "T1, by arithmetic",
              "To unmap one page: 100 slots of chains; or 10,000 VMAs, of which 9,900 do not map it.",
              (Quoted("slots of a page's chain", None, 100, "slots", "t1_slots", True),
               Quoted("VMAs asked by a list walk, at worst", None, 10_000, "VMAs", "t1_vmas_asked", True))),
    Published("J15", "Hugh Dickins", "24 March 2003", "linux-mm", "lmbench fork on two small SMPs",
              "anonmm in the place of chains for anonymous pages: fork 449 to 410 us, 604 to 536 us.",
              (Quoted("fork, anonymous chains to anonmm", 449, 410, "us", "fork_chain_to_anonmm"),)),
    Published("J16", "Martin Bligh", "22 March 2003", "linux-mm", "kernbench and SDET on a 16-way",
              "anonmm against partial objrmap: equal; nine anonymous pages in ten are mapped once.",
              why_not="equal within the noise of times"),
    Published("J17", "Randy Hron", "22 March 2003", "linux-mm", "builds on a K6-2", "3895 to 3824 s and the like.",
              why_not="equal within the noise of times"),
    Published("J18", "Rajesh Venkatasubramanian", "21 March 2004", "linux-mm", "rmap-test on a PII, 256 MB",
              "System time, chains / prio_tree / lists: T1 277.14 / 203.90 / 19834.38 (killed); T2 212.50 / 101.77 / "
              "605.97; T3 31.08 / 31.41 / 1588.40 (killed).",
              (Quoted("T1, chains to prio_tree", 277.14, 203.90, "s", "t1_chain_to_prio"),
               Quoted("T1, prio_tree to lists", 203.90, 19834.38, "s", "t1_prio_to_list"),
               Quoted("T2, chains to prio_tree", 212.50, 101.77, "s", "t2_chain_to_prio"),
               Quoted("T3, prio_tree to lists", 31.41, 1588.40, "s", "t3_prio_to_list"))),
    Published("J19", "Ingo Molnar", "9 March 2004", "linux-mm", "test-mmap3 on a 500 MHz UP box",
              "Under lists the console was dead; power off after half an hour.",
              (Quoted("test-mmap3, a page's walk, prio_tree to lists", None, 0, "", "mmap3_prio_to_list"),)),
    Published("J20", "Martin Bligh", "April 2004", "acf23ce39b", "SDET on a 16-way and large PPC64",
              "A semaphore around the tree costs 25 to 30%.", why_not="contention of a lock, which is not modelled"),
    Published("J21", "Hugh Dickins", "August 2004", "f7f5e03df0", "lmbench fork",
              "10% less without a lock around the mapcount.", why_not=TIME),
    Published("J22", "Rik van Riel", "2010", "5beb49305251", "1,000 children with 1,000 rewritten pages each",
              "A walk of a child's page asks 1 VMA in the place of 1,000; over all pages, 2 on average.",
              (Quoted("VMAs asked about a child's page, anon_vma to chains", 1000, 1, "VMAs", "aim7_child", True),
               Quoted("about any page, on average", None, 2, "VMAs", "aim7_average", True))),
    Published("J23", "Michel Lespinasse", "2012", "6b2dbba8b6ac", "microbenchmarks of the trees",
              "The interval tree searches 2.4 to 3 times as fast as the prio_tree.",
              why_not="time per node: the two visit about as many (see objrmap_prio and objrmap_prio:interval)"),
    Published("J24", "Andrea Arcangeli", "9 March 2004", "linux-mm", "Oracle applications on 32 GB",
              "7,504 users without chains; with them low memory would not have been enough.",
              why_not="no second figure; worst-pte-chain and sga show the memory"),
    Published("J25", "William Lee Irwin", "21 February 2003", "linux-kernel", "a desktop of 768 MB",
              "Chains 5,188 KB, page tables 2,756 KB: 1.88 times.",
              (Quoted("chains by page tables, 32-bit", None, 1.88, "times", "chains_by_tables",
                      note="another machine's memory: its pages have fewer sharers than X and a browser gave"),)),
    Published("J26", "LWN", "OLS 2004", "slide mgp00008.txt", "a slide",
              "Chains made reclaim better, and fork slow and memory short; objects are the answer.", why_not=NO_FIGURE),
    Published("J27", "Dave McCracken", "OLS 2004", "abstract", "a talk",
              "Chains cost much space, and time at map, unmap, fork and exit.", why_not=NO_FIGURE),
    Published("J28", "Tao and wangtao; Peter Xu", "May 2026; June 2021", "linux-mm; kvm",
              "Android after boot with ANON_VMA_LAZY; a guest's forks under KVM",
              "Links 18,866 to 8,112 KB, anon_vmas 20,426 to 614 KB. KVM: 367 to 302 to 265 with longer blocks.",
              (Quoted("links, anon_vma_chain to lazy", 18866, 8112, "KB", "lazy_links"),
               Quoted("anon_vmas", 20426, 614, "KB", "lazy_anon_vmas"))),
)  # fmt: skip
"""Every source, in the order of its number."""
