/*
 * What only the kernel's own memory tells of its reverse map: VMAs with their anon_vmas and chains, struct pages in bulk,
 * and the interval trees a walk descends. Read-only: every read is a copy that may fail, and nothing is locked except,
 * by the iterator, the memory map whose VMAs are read.
 *
 * Layouts of records are repeated in kernel_memory.py, which parses them.
 */
#include "kernel.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define WORDS_PER_RECORD 6
#define MOST_LINKS 600 /* of one VMA: what fits into the iterator's buffer of 32 KiB */
#define BATCH 65536 /* pages, or tree nodes, a call */
#define PAGE_WORDS 12
#define NODE_WORDS 11
#define DEEPEST 128 /* a red-black tree of 2^63 nodes is less deep */

enum record { VMA = 1, VMA_MORE = 2, VMA_FILE = 3, LINK = 4 };
enum tree { ANON_VMA_TREE = 0, I_MMAP_TREE = 1 };

/* ---- VMAs and chains -------------------------------------------------------------------------------------------- */

struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 65536); __type(key, __u32); __type(value, __u8); } wanted SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32); } only_wanted SEC(".maps");

struct chain { struct seq_file *seq; struct list_head *head, *at; };

static long one_link(__u32 i, struct chain *chain)
{
	__u64 record[WORDS_PER_RECORD] = { LINK };
	struct anon_vma_chain *link;
	struct anon_vma *anon_vma;

	if (!chain->at || chain->at == chain->head)
		return 1;
	link = (void *)chain->at - bpf_core_field_offset(struct anon_vma_chain, same_vma);
	anon_vma = BPF_CORE_READ(link, anon_vma);
	record[1] = (__u64)anon_vma;
	record[2] = (__u64)BPF_CORE_READ(anon_vma, root);
	record[3] = (__u64)BPF_CORE_READ(anon_vma, parent);
	record[4] = (__u32)BPF_CORE_READ(anon_vma, refcount.counter) | BPF_CORE_READ(anon_vma, num_children) << 32;
	record[5] = BPF_CORE_READ(anon_vma, num_active_vmas);
	if (i == MOST_LINKS - 1)
		record[5] |= 1ULL << 63; /* there may be more */
	bpf_seq_write(chain->seq, record, sizeof(record));
	chain->at = BPF_CORE_READ(link, same_vma.next);
	return 0;
}

static int is_wanted(__u32 tgid)
{
	__u32 zero = 0, *only = bpf_map_lookup_elem(&only_wanted, &zero);

	return !only || !*only || bpf_map_lookup_elem(&wanted, &tgid);
}

SEC("iter/task_vma")
int vmas(struct bpf_iter__task_vma *ctx)
{
	struct task_struct *task = ctx->task;
	struct vm_area_struct *vma = ctx->vma;
	__u64 record[3 * WORDS_PER_RECORD] = { [0] = VMA, [6] = VMA_MORE, [12] = VMA_FILE };
	struct chain chain = {};
	struct file *file;

	if (!task || !vma || task->pid != task->tgid || !is_wanted(task->tgid))
		return 0;
	record[1] = task->tgid;
	record[2] = (__u64)vma;
	record[3] = vma->vm_start;
	record[4] = vma->vm_end;
	record[5] = BPF_CORE_READ(vma, vm_flags);
	record[7] = vma->vm_pgoff;
	record[8] = (__u64)vma->vm_mm;
	record[9] = (__u64)vma->anon_vma;
	file = vma->vm_file;
	record[10] = (__u64)file;
	if (file) {
		struct address_space *mapping = BPF_CORE_READ(file, f_mapping);

		record[11] = (__u64)mapping;
		record[13] = BPF_CORE_READ(mapping, host, i_ino);
		record[14] = BPF_CORE_READ(mapping, host, i_sb, s_dev);
		record[15] = (__s64)BPF_CORE_READ(mapping, i_mmap_writable.counter);
	}
	bpf_seq_write(ctx->meta->seq, record, sizeof(record));
	chain.seq = ctx->meta->seq;
	chain.head = (void *)vma + bpf_core_field_offset(struct vm_area_struct, anon_vma_chain);
	chain.at = BPF_CORE_READ(vma, anon_vma_chain.next);
	bpf_loop(MOST_LINKS, one_link, &chain, 0);
	return 0;
}

/* ---- struct pages ----------------------------------------------------------------------------------------------- */

/*
 * Shared with the reader: what is asked (PFNs), and what is answered (records of pages, or of tree nodes). A walk of a
 * tree counts here, not on its stack, where the verifier would follow every value the counters can have.
 */
struct exchange { __u64 asked[BATCH], answer[BATCH * PAGE_WORDS], waiting, visited; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __uint(map_flags, BPF_F_MMAPABLE); __type(key, __u32);
	 __type(value, struct exchange); } exchange SEC(".maps");

struct page_request { __u64 vmemmap, count; };
struct page_context { struct exchange *exchange; __u64 vmemmap; };

/* The folio of the first page of a file: with one page in it, the file's tree of pages is that page. */
SEC("syscall")
int first_folio(__u64 *fd_in_folio_out)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct file **files = BPF_CORE_READ(task, files, fdt, fd), *file;

	if (bpf_probe_read_kernel(&file, sizeof(file), files + *fd_in_folio_out))
		return 1;
	*fd_in_folio_out = (__u64)BPF_CORE_READ(file, f_mapping, i_pages.xa_head);
	return 0;
}

SEC("syscall")
int size_of_page(__u64 *size)
{
	*size = bpf_core_type_size(struct page);
	return 0;
}

/* A field of a copy: one copy of a whole struct page is several times faster than one of each field. */
#define PAGE_BYTES 64
#define FIELD(copy, type, field) (*(typeof(((type *)0)->field) *)((copy) + bpf_core_field_offset(type, field)))

static long one_page(__u32 i, struct page_context *context)
{
	struct exchange *exchange = context->exchange;
	char copy[PAGE_BYTES] __attribute__((aligned(8)));
	__u64 *answer, slot = i & (BATCH - 1); /* the mask is for the verifier: no call asks for more */
	struct folio *folio;
	__u64 head;

	answer = exchange->answer + slot * PAGE_WORDS;
	folio = (void *)(context->vmemmap + exchange->asked[slot] * bpf_core_type_size(struct page));
	answer[0] = 0;
	if (bpf_probe_read_kernel(copy, sizeof(copy), folio))
		return 0;
	answer[0] = 1;
	answer[1] = *(__u64 *)copy; /* flags stand first, whatever their type is called */
	answer[2] = (__s64)FIELD(copy, struct page, _mapcount.counter);
	head = FIELD(copy, struct page, compound_head);
	if (head & 1) {
		folio = (void *)(head - 1);
		if (bpf_probe_read_kernel(copy, sizeof(copy), folio))
			return 0;
	}
	answer[3] = (__u64)folio;
	answer[4] = *(__u64 *)copy;
	answer[5] = (__u64)FIELD(copy, struct folio, mapping);
	answer[6] = FIELD(copy, struct folio, index);
	answer[7] = (__s64)FIELD(copy, struct folio, _refcount.counter);
	answer[8] = -1ULL; /* a folio of one page */
	if (answer[4] >> bpf_core_enum_value(enum pageflags, PG_head) & 1) {
		answer[8] = BPF_CORE_READ(folio, _flags_1) & 0xff;
		answer[9] = (__s64)BPF_CORE_READ(folio, _large_mapcount.counter);
		answer[10] = (__s64)BPF_CORE_READ(folio, _entire_mapcount.counter);
		answer[11] = (__s64)BPF_CORE_READ(folio, _nr_pages_mapped.counter);
	}
	return 0;
}

SEC("syscall")
int pages(struct page_request *request)
{
	__u32 zero = 0;
	struct page_context context = { .vmemmap = request->vmemmap };

	context.exchange = bpf_map_lookup_elem(&exchange, &zero);
	if (!context.exchange)
		return 1;
	bpf_loop(request->count, one_page, &context, 0);
	return 0;
}

SEC("syscall")
int exclusive_bit(__u64 *bit)
{
	*bit = bpf_core_enum_value(enum pageflags, PG_anon_exclusive);
	return 0;
}

/* ---- page tables (x86-64) --------------------------------------------------------------------------------------- */

#define PTE_WORDS 2
#define PRESENT 1ULL
#define HUGE (1ULL << 7)
#define FRAME 0x000ffffffffff000ULL

struct pte_request { __u64 mm, direct_map, top_shift, count; };
struct pte_context { struct exchange *exchange; __u64 top, direct_map, top_shift; };

/* The entry that decides about an address: the last one, or the first on the way that ends it. And at which level. */
static long one_pte(__u32 i, struct pte_context *context)
{
	struct exchange *exchange = context->exchange;
	__u64 slot = i & (BATCH - 1), address = exchange->asked[slot], table = context->top, entry = 0;
	__s64 shift = context->top_shift;

	for (int level = 0; level < 5; level++) {
		if (bpf_probe_read_kernel(&entry, sizeof(entry), (void *)(table + (address >> shift & 511) * 8)))
			entry = 0;
		if (shift <= 12 || !(entry & PRESENT) || entry & HUGE)
			break;
		table = context->direct_map + (entry & FRAME);
		shift -= 9;
	}
	exchange->answer[slot * PTE_WORDS] = entry;
	exchange->answer[slot * PTE_WORDS + 1] = shift;
	return 0;
}

SEC("syscall")
int ptes(struct pte_request *request)
{
	struct pte_context context = { .direct_map = request->direct_map, .top_shift = request->top_shift };
	struct mm_struct *mm = (void *)request->mm;
	__u32 zero = 0;

	context.exchange = bpf_map_lookup_elem(&exchange, &zero);
	if (!context.exchange)
		return 1;
	context.top = (__u64)BPF_CORE_READ(mm, pgd);
	bpf_loop(request->count, one_pte, &context, 0);
	return 0;
}

SEC("syscall")
int own_mm(__u64 *mm)
{
	struct task_struct *task = bpf_get_current_task_btf();

	*mm = (__u64)BPF_CORE_READ(task, mm);
	return 0;
}

/* ---- interval trees --------------------------------------------------------------------------------------------- */

struct tree_request { __u64 root, tree, count, more; __s64 writable; };
struct tree_context { struct exchange *exchange; __u64 tree; };

static struct rb_node *read_link(struct vm_area_struct **vma, __u64 *last, struct rb_node *node, __u64 tree)
{
	if (tree == ANON_VMA_TREE) {
		struct anon_vma_chain *link = (void *)node - bpf_core_field_offset(struct anon_vma_chain, rb);

		*vma = BPF_CORE_READ(link, vma);
		*last = BPF_CORE_READ(link, rb_subtree_last);
	} else {
		*vma = (void *)node - bpf_core_field_offset(struct vm_area_struct, shared.rb);
		*last = BPF_CORE_READ(*vma, shared.rb_subtree_last);
	}
	return node;
}

/* Nodes still to visit wait in `asked`: a node, then its left subtree, then its right one. */
static long one_node(__u32 i, struct tree_context *context)
{
	struct exchange *exchange = context->exchange;
	struct vm_area_struct *vma;
	struct rb_node *node, *left, *right;
	__u64 *answer, waiting = exchange->waiting;

	if (!waiting)
		return 1;
	waiting--;
	node = (void *)exchange->asked[waiting & (DEEPEST - 1)];
	answer = exchange->answer + (i & (BATCH - 1)) * (__u64)NODE_WORDS;
	left = BPF_CORE_READ(node, rb_left);
	right = BPF_CORE_READ(node, rb_right);
	answer[0] = (__u64)read_link(&vma, &answer[3], node, context->tree);
	answer[1] = (__u64)left;
	answer[2] = (__u64)right;
	answer[4] = (__u64)vma;
	answer[5] = BPF_CORE_READ(vma, vm_start);
	answer[6] = BPF_CORE_READ(vma, vm_end);
	answer[7] = BPF_CORE_READ(vma, vm_pgoff);
	answer[8] = (__u64)BPF_CORE_READ(vma, vm_mm);
	answer[9] = BPF_CORE_READ(vma, vm_flags);
	answer[10] = (__s64)BPF_CORE_READ(vma, vm_mm, mm_users.counter);
	exchange->visited++;
	if (right)
		exchange->asked[waiting++ & (DEEPEST - 1)] = (__u64)right;
	if (left)
		exchange->asked[waiting++ & (DEEPEST - 1)] = (__u64)left;
	exchange->waiting = waiting;
	return 0;
}

SEC("syscall")
int tree(struct tree_request *request)
{
	struct tree_context context = { .tree = request->tree };
	struct anon_vma *anon_vma = (void *)request->root;
	struct address_space *mapping = (void *)request->root;
	struct rb_node *root;
	__u32 zero = 0;

	context.exchange = bpf_map_lookup_elem(&exchange, &zero);
	if (!context.exchange)
		return 1;
	if (request->tree == ANON_VMA_TREE) {
		root = BPF_CORE_READ(anon_vma, rb_root.rb_root.rb_node);
	} else {
		root = BPF_CORE_READ(mapping, i_mmap.rb_root.rb_node);
		request->writable = BPF_CORE_READ(mapping, i_mmap_writable.counter);
	}
	context.exchange->asked[0] = (__u64)root;
	context.exchange->waiting = root != 0;
	context.exchange->visited = 0;
	bpf_loop(BATCH, one_node, &context, 0);
	request->count = context.exchange->visited;
	request->more = context.exchange->waiting;
	return 0;
}
