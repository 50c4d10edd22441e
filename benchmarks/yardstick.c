/*
 * What memory management costs on the running kernel: the yardstick for the model.
 *
 *     yardstick [PAGES [ROUNDS [VMAS]]]
 *
 * Every operation is timed once per round, on a fresh private anonymous mapping of PAGES base pages (transparent
 * huge pages off); a first round is dropped. Memory is warmed up before each operation that takes new pages: one that
 * comes fresh from the host of a virtual machine costs several times one that was in use a moment ago. One JSON object goes to standard output;
 * for every operation it has the median, the smallest and the largest round, in ns per page (per fork where the
 * name says so). Pin the program to one CPU: a remote TLB flush costs more than most of what is measured here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define TABLE (512 * PAGE) /* what one page table covers */
#define SINGLES 4096UL     /* how many single faults make one sample */
#define MAX_ROUNDS 1000

enum operation {
	TOUCH, FORK, CHILD_EXIT, COW, REUSE, MPROTECT_RO, MPROTECT_RW, MREMAP_PAGES, MREMAP_TABLES,
	DONTNEED, MUNMAP, FAULT, COW_FAULT, FORK_VMAS, FORK_NOTHING, OPERATIONS
};

static const char *const NAMES[OPERATIONS] = {
	"touch", "fork", "child_exit", "cow", "reuse", "mprotect_ro", "mprotect_rw", "mremap_pages", "mremap_tables",
	"dontneed", "munmap", "fault", "cow_fault", "fork_vmas", "fork_nothing"
};

static double samples[OPERATIONS][MAX_ROUNDS];
static int sample_count[OPERATIONS];

/* Written by a child, read by its parent: when the child began to exit, and how long its work took. */
static volatile struct { double exit_began, work; } *from_child;

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "yardstick: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void record(enum operation op, double ns, double per)
{
	samples[op][sample_count[op]++] = ns / per;
}

static char *map_at(char *address, size_t bytes, int prot)
{
	int fixed = address ? MAP_FIXED_NOREPLACE : 0;
	char *p = mmap(address, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	if (madvise(p, bytes, MADV_NOHUGEPAGE) && errno != EINVAL)
		die("madvise(MADV_NOHUGEPAGE)");
	return p;
}

static char *map(size_t bytes)
{
	return map_at(NULL, bytes, PROT_READ | PROT_WRITE);
}

static void touch(volatile char *p, size_t pages)
{
	for (size_t i = 0; i < pages; i++)
		p[i * PAGE] = 1;
}

/* Makes the next `pages` pages that the kernel hands out ones that were in use a moment ago. */
static void warm_up(size_t pages)
{
	char *spare = map(pages * PAGE);

	touch(spare, pages);
	munmap(spare, pages * PAGE);
}

static pid_t fork_or_die(void)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	return pid;
}

static void reap(pid_t pid)
{
	if (waitpid(pid, NULL, 0) != pid)
		die("waitpid");
}

/* The time of fork() alone, as its caller sees it; the child leaves at once. */
static double timed_fork(void)
{
	double began = now_ns(), took;
	pid_t pid = fork_or_die();

	if (!pid)
		_exit(0);
	took = now_ns() - began;
	reap(pid);
	return took;
}

/* fork, the child's exit with every page still shared, COW of every page in a child, and the parent's reuse. */
static void family(char *p, size_t pages)
{
	double began;
	pid_t pid;

	record(FORK, timed_fork(), pages);
	touch(p, pages);

	pid = fork_or_die();
	if (!pid) {
		from_child->exit_began = now_ns();
		_exit(0);
	}
	reap(pid);
	record(CHILD_EXIT, now_ns() - from_child->exit_began, pages);

	began = now_ns();
	touch(p, pages);
	record(REUSE, now_ns() - began, pages);

	warm_up(pages);
	pid = fork_or_die();
	if (!pid) {
		began = now_ns();
		touch(p, pages);
		from_child->work = now_ns() - began;
		_exit(0);
	}
	reap(pid);
	record(COW, from_child->work, pages);
	touch(p, pages);
}

static void protect(char *p, size_t pages)
{
	double began = now_ns();

	if (mprotect(p, pages * PAGE, PROT_READ))
		die("mprotect(PROT_READ)");
	record(MPROTECT_RO, now_ns() - began, pages);

	began = now_ns();
	if (mprotect(p, pages * PAGE, PROT_READ | PROT_WRITE))
		die("mprotect(PROT_READ | PROT_WRITE)");
	record(MPROTECT_RW, now_ns() - began, pages);
	touch(p, pages);
}

static char *move(char *from, char *to, size_t bytes, enum operation op)
{
	double began = now_ns();

	if (mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		die("mremap");
	record(op, now_ns() - began, bytes / PAGE);
	return to;
}

/*
 * Moves whole page tables (source and target alike modulo what one table covers), then single entries (off by one
 * page). Returns where the pages are now; `arena` is an address range reserved for this.
 */
static char *relocate(char *p, char *arena, size_t pages)
{
	size_t bytes = pages * PAGE;
	char *first = (char *)(((size_t)arena + TABLE - 1) & ~(TABLE - 1)) + ((size_t)p & (TABLE - 1));
	char *second = first + ((bytes + TABLE - 1) & ~(TABLE - 1)) + TABLE + PAGE;

	p = move(p, first, bytes, MREMAP_TABLES);
	return move(p, second, bytes, MREMAP_PAGES);
}

static void whole_mapping(size_t pages)
{
	size_t bytes = pages * PAGE, arena_bytes = 2 * bytes + 6 * TABLE;
	double began;
	char *p, *arena;

	warm_up(pages);
	began = now_ns();
	p = map(bytes);
	touch(p, pages);
	record(TOUCH, now_ns() - began, pages);
	family(p, pages);
	protect(p, pages);

	arena = map_at(NULL, arena_bytes, PROT_NONE);
	p = relocate(p, arena, pages);

	began = now_ns();
	if (madvise(p, bytes, MADV_DONTNEED))
		die("madvise(MADV_DONTNEED)");
	record(DONTNEED, now_ns() - began, pages);

	touch(p, pages);
	began = now_ns();
	if (munmap(p, bytes))
		die("munmap");
	record(MUNMAP, now_ns() - began, pages);
	munmap(arena, arena_bytes);
}

/* Faults one by one, in a mapping whose first page, and so its anon_vma and page table, is there already. */
static void single_faults(void)
{
	char *p = map((SINGLES + 1) * PAGE);
	double began;
	pid_t pid;

	touch(p, 1);
	began = now_ns();
	touch(p + PAGE, SINGLES);
	record(FAULT, now_ns() - began, SINGLES);

	pid = fork_or_die();
	if (!pid) {
		touch(p, 1);
		began = now_ns();
		touch(p + PAGE, SINGLES);
		from_child->work = now_ns() - began;
		_exit(0);
	}
	reap(pid);
	record(COW_FAULT, from_child->work, SINGLES);
	munmap(p, (SINGLES + 1) * PAGE);
}

/* fork of a process with `vmas` one-page VMAs, each touched, that cannot merge: there is a hole between any two. */
static void many_vmas(size_t vmas)
{
	size_t span = 2 * vmas * PAGE;
	char *base;

	record(FORK_NOTHING, timed_fork(), 1);
	base = map_at(NULL, span, PROT_NONE);
	munmap(base, span);
	for (size_t i = 0; i < vmas; i++)
		touch(map_at(base + 2 * i * PAGE, PAGE, PROT_READ | PROT_WRITE), 1);
	record(FORK_VMAS, timed_fork(), 1);
	munmap(base, span);
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void report(size_t pages, int rounds, size_t vmas)
{
	struct utsname system;

	uname(&system);
	printf("{\"kernel\": \"%s\", \"pages\": %zu, \"rounds\": %d, \"vmas\": %zu, \"ns\": {", system.release, pages,
	       rounds, vmas);
	for (int op = 0; op < OPERATIONS; op++) {
		double *s = samples[op];
		int n = sample_count[op];

		qsort(s, n, sizeof(*s), ascending);
		printf("%s\"%s\": {\"median\": %.2f, \"min\": %.2f, \"max\": %.2f}", op ? ", " : "", NAMES[op], s[n / 2], s[0],
		       s[n - 1]);
	}
	puts("}}");
}

int main(int argc, char **argv)
{
	size_t pages = argc > 1 ? strtoul(argv[1], NULL, 0) : 65536;
	int rounds = argc > 2 ? atoi(argv[2]) : 9;
	size_t vmas = argc > 3 ? strtoul(argv[3], NULL, 0) : 1000;

	if (pages < 1 || rounds < 1 || rounds >= MAX_ROUNDS || vmas < 1) {
		fprintf(stderr, "usage: yardstick [PAGES [ROUNDS [VMAS]]]\n");
		return 2;
	}
	from_child = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (from_child == MAP_FAILED)
		die("mmap");
	for (int round = 0; round <= rounds; round++) {
		if (round == 1)
			memset(sample_count, 0, sizeof(sample_count));
		whole_mapping(pages);
		single_faults();
		many_vmas(vmas);
	}
	report(pages, rounds, vmas);
	return 0;
}
