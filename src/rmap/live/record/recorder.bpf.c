/*
 * What happens to the memory of recorded processes, as fixed records of 88 bytes in one ring buffer.
 *
 * A system call is one record, written where it returns: the entry left its arguments in the registers that the kernel
 * saved. Processes are followed through fork by a map of our own, which also holds the mm of each: what happens under
 * another mm (execve building the next one; the recorder's child before its first exec) is not of that process yet.
 * A record that finds no room is counted. Linux 6.18, x86-64 only: registers and call numbers are its.
 */
#include <stdbool.h>
#include "kernel.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

struct pt_regs { unsigned long r10, r9, r8, dx, si, di, orig_ax, cs; } RELOCATED;
struct signal_struct { atomic_t live; } RELOCATED;
struct qstr { const unsigned char *name; } RELOCATED;
struct dentry { struct qstr d_name; } RELOCATED;
struct path { struct dentry *dentry; } RELOCATED;
/* Further fields of structures that kernel.h has; the loader leaves out what stands behind ___. */
struct task_struct___more { int tgid, pid; struct mm_struct *mm; struct signal_struct *signal; } RELOCATED;
struct inode___more { unsigned short i_mode; unsigned int i_generation; } RELOCATED;
struct file___more { struct path f_path; } RELOCATED;
struct fdtable___more { unsigned int max_fds; } RELOCATED;

enum kind { SYSCALL = 1, FAULT, FORK, EXEC, EXIT, NAME = 100, FILE }; /* as rmap.trace.tables; the last two are ours */
enum counter { LOST, UNTRACKED, FOREIGN };
enum file_bits { WRITABLE = 1, SHMEM = 2, DEVICE = 4 };

struct record {
	__u64 time;
	__u32 kind, nr, tgid, tid;
	__u64 a[6];
	__s64 result;
	__u64 file;
};

struct known {
	__u64 inode, ino, size;
	__u32 generation, writable;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 << 20);
} ring SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u64);
} tracked SEC(".maps"); /* tgid -> mm */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct known);
} files SEC(".maps"); /* struct file -> what was told of it */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &which);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/* Whether what the current task does is done to the memory of a recorded process. */
static __always_inline bool is_recorded(__u32 tgid)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	__u64 *mm = bpf_map_lookup_elem(&tracked, &tgid);

	return mm && *mm == (__u64)task->mm;
}

static __always_inline struct record *reserve(__u32 kind)
{
	struct record *record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	__u64 id = bpf_get_current_pid_tgid();

	if (!record) {
		count(LOST);
		return 0;
	}
	record->time = bpf_ktime_get_ns();
	record->kind = kind;
	record->nr = 0;
	record->tgid = id >> 32;
	record->tid = id;
	record->result = 0;
	record->file = 0;
	return record;
}

static __always_inline void submit(struct record *record)
{
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

/* Numbers below 512 that change memory, 64 to a word. */
#define BIT(n) (1ULL << ((n) & 63))
static __always_inline bool is_wanted(__u64 nr)
{
	switch (nr >> 6) {
	case 0: /* open mmap mprotect munmap brk mremap madvise shmat */
		return (BIT(2) | BIT(9) | BIT(10) | BIT(11) | BIT(12) | BIT(25) | BIT(28) | BIT(30)) & BIT(nr);
	case 1: /* shmdt truncate ftruncate creat */
		return (BIT(67) | BIT(76) | BIT(77) | BIT(85)) & BIT(nr);
	case 2: /* mlock munlock mlockall munlockall prctl */
		return (BIT(149) | BIT(150) | BIT(151) | BIT(152) | BIT(157)) & BIT(nr);
	case 3: /* io_setup io_destroy remap_file_pages mbind */
		return (BIT(206) | BIT(207) | BIT(216) | BIT(237)) & BIT(nr);
	case 4: /* openat fallocate process_vm_writev */
		return (BIT(257) | BIT(285) | BIT(311)) & BIT(nr);
	case 5: /* mlock2 pkey_mprotect */
		return (BIT(325) | BIT(329)) & BIT(nr);
	case 6: /* openat2 process_madvise */
		return (BIT(437) | BIT(440)) & BIT(nr);
	case 7: /* set_mempolicy_home_node map_shadow_stack mseal */
		return (BIT(450) | BIT(453) | BIT(462)) & BIT(nr);
	}
	return false;
}

#define O_TRUNC 01000
static __always_inline bool truncates(__u64 nr, struct pt_regs *regs)
{
	__u64 flags = 0;

	if (nr == 2)
		return regs->si & O_TRUNC;
	if (nr == 85)
		return true;
	if (nr == 257)
		return regs->dx & O_TRUNC;
	bpf_probe_read_user(&flags, sizeof(flags), (void *)regs->dx);
	barrier_var(flags); /* or the compiler makes one load of it and of the registers, which the verifier refuses */
	return flags & O_TRUNC;
}

/* PR_SET_MM PR_SET_THP_DISABLE PR_SET_MEMORY_MERGE PR_SET_VMA */
static __always_inline bool changes_memory(__u64 option)
{
	return option == 35 || option == 41 || option == 67 || option == 0x53564d41;
}

static __always_inline struct file *file_of(__u64 fd)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	struct fdtable *table = task->files->fdt;
	struct file *file = 0;

	if ((__u32)fd >= ((struct fdtable___more *)table)->max_fds)
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), &table->fd[(__u32)fd]);
	return file;
}

static long keep_file(struct task_struct *task, struct vm_area_struct *vma, void *found)
{
	*(struct file **)found = vma->vm_file;
	return 0;
}

/* The file of the VMA that a call has just made: of shared memory that has no descriptor. */
static __always_inline struct file *file_at(__u64 address)
{
	struct file *file = 0;

	bpf_find_vma(bpf_get_current_task_btf(), address, keep_file, &file, 0);
	return file;
}

#define FMODE_WRITE 2
#define TMPFS_MAGIC 0x01021994
#define S_IFMT 0170000
#define S_IFCHR 0020000
#define S_IFREG 0100000
/*
 * Say what is behind a struct file, when it is met first, stands for another inode than before (its memory was used
 * again), or has another size. *size is set to its size.
 */
static __always_inline void introduce(struct file *file, __u64 fd, bool by_call, __u64 *size)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct inode___more *more = (void *)inode;
	struct super_block *sb = BPF_CORE_READ(inode, i_sb);
	__u32 mode = BPF_CORE_READ(file, f_mode), type = BPF_CORE_READ(more, i_mode) & S_IFMT;
	struct known now = { (__u64)inode, BPF_CORE_READ(inode, i_ino), BPF_CORE_READ(inode, i_size),
			     BPF_CORE_READ(more, i_generation), (mode & FMODE_WRITE) != 0 };
	struct known *before;
	struct record *record;
	__u64 key = (__u64)file;

	*size = now.size;
	before = bpf_map_lookup_elem(&files, &key);
	if (before && before->inode == now.inode && before->ino == now.ino && before->generation == now.generation &&
	    before->writable == now.writable) {
		if (before->size == now.size)
			return;
		before->size = now.size;
		if (by_call) /* ftruncate and the like tell the size themselves */
			return;
	} else {
		bpf_map_update_elem(&files, &key, &now, BPF_ANY);
	}
	record = reserve(NAME);
	if (record) {
		struct dentry *dentry = BPF_CORE_READ((struct file___more *)file, f_path.dentry);

		__builtin_memset(record->a, 0, sizeof(record->a));
		bpf_probe_read_kernel_str(record->a, sizeof(record->a), BPF_CORE_READ(dentry, d_name.name));
		record->file = key;
		submit(record);
	}
	record = reserve(FILE);
	if (record) {
		record->nr = by_call;
		record->a[0] = BPF_CORE_READ(sb, s_dev);
		record->a[1] = now.ino;
		record->a[2] = now.size;
		record->a[3] = now.writable | (BPF_CORE_READ(sb, s_magic) == TMPFS_MAGIC && type == S_IFREG ? SHMEM : 0) |
			       (type == S_IFCHR ? DEVICE : 0);
		record->a[4] = fd;
		record->a[5] = now.generation;
		record->file = key;
		submit(record);
	}
}

#define MAP_SHARED 1
#define MAP_ANONYMOUS 0x20
#define IS_ERR(result) ((__u64)(result) >= (__u64)-4095)
/* The struct file that a call is about, 0 for none. */
static __always_inline struct file *subject(__u64 nr, struct pt_regs *regs, long result, __u64 *fd)
{
	*fd = -1;
	if (IS_ERR(result))
		return 0;
	if (nr == 9 && (regs->r10 & MAP_ANONYMOUS))
		return regs->r10 & MAP_SHARED ? file_at(result) : 0;
	if (nr == 30)
		return file_at(result);
	if (nr == 9)
		*fd = (__u32)regs->r8;
	else if (nr == 77 || nr == 285)
		*fd = (__u32)regs->di;
	else if (nr == 2 || nr == 85 || nr == 257 || nr == 437)
		*fd = (__u32)result;
	else
		return 0;
	return file_of(*fd);
}

SEC("tp_btf/sys_exit")
int record_call(__u64 *ctx)
{
	struct pt_regs *regs = (void *)ctx[0];
	long result = ctx[1];
	__u64 nr = regs->orig_ax, fd, size = 0;
	struct record *record;
	struct file *file;

	if (!is_wanted(nr) || !is_recorded(bpf_get_current_pid_tgid() >> 32))
		return 0;
	if ((regs->cs & 0xffff) != 0x33) { /* 32-bit code has other numbers */
		count(FOREIGN);
		return 0;
	}
	if ((nr == 2 || nr == 85 || nr == 257 || nr == 437) && !truncates(nr, regs))
		return 0;
	if (nr == 157 && !changes_memory(regs->di))
		return 0;
	file = subject(nr, regs, result, &fd);
	if (file)
		introduce(file, fd, nr != 9 && nr != 30, &size);
	record = reserve(SYSCALL);
	if (!record)
		return 0;
	record->nr = nr;
	record->a[0] = regs->di;
	record->a[1] = regs->si;
	record->a[2] = regs->dx;
	record->a[3] = regs->r10;
	record->a[4] = regs->r8;
	record->a[5] = file && nr != 9 && nr != 30 ? size : regs->r9;
	record->result = result;
	record->file = (__u64)file;
	submit(record);
	return 0;
}

static __always_inline int record_fault(__u64 address, __u64 error, bool in_kernel)
{
	struct record *record;

	if ((__s64)address < 0 || !is_recorded(bpf_get_current_pid_tgid() >> 32))
		return 0;
	record = reserve(FAULT);
	if (!record)
		return 0;
	record->a[0] = address;
	record->a[1] = error;
	record->a[2] = in_kernel;
	record->a[3] = record->a[4] = record->a[5] = 0;
	submit(record);
	return 0;
}

SEC("tp_btf/page_fault_user")
int record_user_fault(__u64 *ctx)
{
	return record_fault(ctx[0], ctx[2], false);
}

SEC("tp_btf/page_fault_kernel")
int record_kernel_fault(__u64 *ctx)
{
	return record_fault(ctx[0], ctx[2], true);
}

/* The tracepoint does not tell the flags; the call that the parent is in does. */
static __always_inline __u64 clone_flags(void)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	__u64 flags = -1;

	if (regs->orig_ax == 56)
		return regs->di;
	if (regs->orig_ax == 57)
		return 0;
	if (regs->orig_ax == 58)
		return 0x4100; /* CLONE_VM | CLONE_VFORK */
	if (regs->orig_ax == 435)
		bpf_probe_read_user(&flags, sizeof(flags), (void *)regs->di);
	return flags;
}

SEC("tp_btf/sched_process_fork")
int record_fork(__u64 *ctx)
{
	struct task_struct___more *parent = (void *)ctx[0], *child = (void *)ctx[1];
	__u32 tgid = parent->tgid, new_tgid = child->tgid;
	__u64 mm = (__u64)child->mm, *of_parent = bpf_map_lookup_elem(&tracked, &tgid);
	struct record *record;

	if (!of_parent || !mm || *of_parent != (__u64)parent->mm)
		return 0;
	if (new_tgid != tgid && bpf_map_update_elem(&tracked, &new_tgid, &mm, BPF_ANY))
		count(UNTRACKED);
	record = reserve(FORK);
	if (!record)
		return 0;
	record->a[0] = new_tgid;
	record->a[1] = child->pid;
	record->a[2] = clone_flags();
	record->a[3] = new_tgid == tgid;
	record->a[4] = mm == (__u64)parent->mm;
	record->a[5] = 0;
	submit(record);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int record_exec(__u64 *ctx)
{
	struct task_struct___more *task = (void *)ctx[0];
	__u32 tgid = task->tgid;
	__u64 mm = (__u64)task->mm;
	struct record *record;

	if (!bpf_map_lookup_elem(&tracked, &tgid))
		return 0;
	bpf_map_update_elem(&tracked, &tgid, &mm, BPF_EXIST);
	record = reserve(EXEC);
	if (!record)
		return 0;
	__builtin_memset(record->a, 0, sizeof(record->a));
	submit(record);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int record_exit(__u64 *ctx)
{
	struct task_struct___more *task = (void *)ctx[0];
	__u32 tgid = task->tgid;
	struct record *record;

	if (task->signal->live.counter || !bpf_map_lookup_elem(&tracked, &tgid))
		return 0;
	bpf_map_delete_elem(&tracked, &tgid);
	record = reserve(EXIT);
	if (!record)
		return 0;
	__builtin_memset(record->a, 0, sizeof(record->a));
	submit(record);
	return 0;
}
