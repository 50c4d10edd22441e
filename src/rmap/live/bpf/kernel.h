/*
 * The parts of the kernel's structures that rmap reads, and nothing more.
 *
 * Field names and kinds are the kernel's; order, offsets and sizes are not: every access is relocated when a program is
 * loaded, against the type information (BTF) of the kernel that runs. So this needs no headers of a certain kernel.
 * Names of releases before 6.18 are not looked for: a field that is missing makes loading fail, and rmap says so.
 */
#ifndef RMAP_KERNEL_H
#define RMAP_KERNEL_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define RELOCATED __attribute__((preserve_access_index))

typedef struct { int counter; } RELOCATED atomic_t;

struct list_head { struct list_head *next, *prev; } RELOCATED;
struct rb_node { struct rb_node *rb_right, *rb_left; } RELOCATED;
struct rb_root { struct rb_node *rb_node; } RELOCATED;
struct rb_root_cached { struct rb_root rb_root; } RELOCATED;
struct xarray { void *xa_head; } RELOCATED;

struct super_block { __u32 s_dev; unsigned long s_magic; } RELOCATED;
struct inode { unsigned long i_ino; struct super_block *i_sb; long long i_size; } RELOCATED;
struct address_space { struct inode *host; struct xarray i_pages; atomic_t i_mmap_writable; struct rb_root_cached i_mmap; } RELOCATED;
struct file { struct address_space *f_mapping; struct inode *f_inode; unsigned int f_mode; } RELOCATED;
struct fdtable { struct file **fd; } RELOCATED;
struct files_struct { struct fdtable *fdt; } RELOCATED;

struct mm_struct { void *pgd; atomic_t mm_users; } RELOCATED;
struct anon_vma {
	struct anon_vma *root, *parent;
	atomic_t refcount;
	unsigned long num_children, num_active_vmas;
	struct rb_root_cached rb_root;
} RELOCATED;
struct vm_area_struct {
	unsigned long vm_start, vm_end, vm_flags, vm_pgoff;
	struct mm_struct *vm_mm;
	struct list_head anon_vma_chain;
	struct anon_vma *anon_vma;
	struct file *vm_file;
	struct { struct rb_node rb; unsigned long rb_subtree_last; } shared;
} RELOCATED;
struct anon_vma_chain {
	struct vm_area_struct *vma;
	struct anon_vma *anon_vma;
	struct list_head same_vma;
	struct rb_node rb;
	unsigned long rb_subtree_last;
} RELOCATED;

struct task_struct { int pid, tgid; struct mm_struct *mm; struct files_struct *files; } RELOCATED;

struct page { unsigned long flags, compound_head; atomic_t _mapcount; } RELOCATED;
struct folio {
	void *mapping;
	unsigned long index;
	atomic_t _mapcount, _refcount;
	unsigned long _flags_1;
	atomic_t _large_mapcount, _entire_mapcount, _nr_pages_mapped;
} RELOCATED;
enum pageflags { PG_head = 0, PG_anon_exclusive = 1 }; /* the numbers are the running kernel's */

struct seq_file;
struct bpf_iter_meta { struct seq_file *seq; } RELOCATED;
struct bpf_iter__task_vma {
	union { struct bpf_iter_meta *meta; __u64 meta_slot; };
	union { struct task_struct *task; __u64 task_slot; };
	union { struct vm_area_struct *vma; __u64 vma_slot; };
};

#endif
