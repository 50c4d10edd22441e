/*
 * Who else changes memory: the kernel's own actors, counted for the whole machine by their tracepoints. They do not run
 * in the processes they act upon, so that recording by process cannot see them. Linux 6.18.
 */
#include "kernel.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum { SCAN_SUCCEED = 1 };
enum actor { RECLAIM = 1, MIGRATION, COLLAPSE, KSM }; /* as rmap.trace.tables */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 5);
	__type(key, __u32);
	__type(value, __u64);
} pages SEC(".maps");

static __always_inline int add(__u32 actor, __u64 count)
{
	__u64 *value = bpf_map_lookup_elem(&pages, &actor);

	if (value)
		__sync_fetch_and_add(value, count);
	return 0;
}

SEC("tp_btf/mm_vmscan_lru_shrink_inactive")
int count_reclaim(__u64 *ctx)
{
	return add(RECLAIM, ctx[2]); /* node, scanned, reclaimed, ... */
}

SEC("tp_btf/mm_vmscan_reclaim_pages")
int count_pageout(__u64 *ctx)
{
	return add(RECLAIM, ctx[2]); /* DAMON, MADV_PAGEOUT: node, scanned, reclaimed, ... */
}

SEC("tp_btf/mm_migrate_pages")
int count_migration(__u64 *ctx)
{
	return add(MIGRATION, ctx[0]); /* succeeded, ... */
}

SEC("tp_btf/mm_collapse_huge_page")
int count_collapse(__u64 *ctx)
{
	return add(COLLAPSE, (int)ctx[2] == SCAN_SUCCEED ? 512 : 0); /* mm, isolated, status */
}

SEC("tp_btf/ksm_merge_one_page")
int count_merge(__u64 *ctx)
{
	return add(KSM, (int)ctx[3] == 0); /* pfn, item, mm, error */
}

SEC("tp_btf/ksm_merge_with_ksm_page")
int count_merge_more(__u64 *ctx)
{
	return add(KSM, (int)ctx[4] == 0); /* stable page, pfn, item, mm, error */
}
