/* The other side of live.py: a forked family as a load, and the plainest readers of what the kernel shows of it.
 *
 *   live_side load ANON_PAGES FILE FILE_PAGES CHILDREN REWRITTEN   prints "PID ADDRESS FILE_ADDRESS", ends with stdin
 *   live_side scatter PAGES                                        leaves as many single pages free, ends with stdin
 *   live_side pagemap PID...                                       reads all entries of these, 64 KiB at a time
 *   live_side rollup PID...                                        reads /proc/PID/smaps_rollup of these
 *
 * The readers print "SECONDS NUMBER": how long it took, and how many entries or bytes they read.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define MOST_VMAS 65536

static char buffer[1 << 16];

static void must(int holds, const char *what)
{
	if (!holds) {
		perror(what);
		_exit(1);
	}
}

static void die_with(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
}

static void until_stdin_ends(void)
{
	char byte;

	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
}

static int load(char **argv)
{
	unsigned long pages = atol(argv[0]), file_pages = atol(argv[2]), rewritten = atol(argv[4]);
	int children = atoi(argv[3]), fd = open(argv[1], O_RDWR), ready[2];
	char *memory, *file, byte = 0;
	pid_t parent = getpid();

	must(fd >= 0 && !pipe(ready), argv[1]);
	die_with(getppid());
	memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	file = mmap(NULL, file_pages * PAGE, PROT_READ, MAP_SHARED, fd, 0);
	must(memory != MAP_FAILED && file != MAP_FAILED, "mmap");
	madvise(memory, pages * PAGE, MADV_NOHUGEPAGE);
	for (unsigned long page = 0; page < pages; page++)
		memory[page * PAGE] = 1;
	must(!madvise(file, file_pages * PAGE, MADV_POPULATE_READ), "MADV_POPULATE_READ");
	for (int child = 0; child < children; child++) {
		pid_t pid = fork();

		must(pid >= 0, "fork");
		if (pid)
			continue;
		die_with(parent);
		must(!madvise(file, file_pages * PAGE, MADV_POPULATE_READ), "MADV_POPULATE_READ");
		/* each its own part, so that most pages keep all their mappers */
		for (unsigned long page = 0; page < rewritten; page++)
			memory[(child * rewritten + page) % pages * PAGE] = 2;
		must(write(ready[1], &byte, 1) == 1, "pipe");
		for (;;)
			pause();
	}
	for (int child = 0; child < children; child++)
		must(read(ready[0], &byte, 1) == 1, "pipe");
	printf("%d %p %p\n", getpid(), (void *)memory, (void *)file);
	until_stdin_ends();
	return 0;
}

/* Memory as on a machine that has been up for long: every second page of twice as many is held, the others are free, in
 * no order, and the kernel hands out single pages before it breaks up larger blocks. */
static int scatter(unsigned long pages)
{
	unsigned long *order = malloc(pages * sizeof(*order));
	char *memory = mmap(NULL, 2 * pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(order && memory != MAP_FAILED, "scatter");
	die_with(getppid());
	madvise(memory, 2 * pages * PAGE, MADV_NOHUGEPAGE);
	memset(memory, 1, 2 * pages * PAGE);
	for (unsigned long page = 0; page < pages; page++) {
		unsigned long other = random() % (page + 1);

		order[page] = order[other];
		order[other] = page;
	}
	for (unsigned long page = 0; page < pages; page++)
		must(!madvise(memory + 2 * order[page] * PAGE, PAGE, MADV_DONTNEED), "MADV_DONTNEED");
	printf("ready\n");
	until_stdin_ends();
	return 0;
}

static unsigned long read_pagemap(const char *pid)
{
	static unsigned long start[MOST_VMAS], end[MOST_VMAS];
	unsigned long entries = 0;
	char name[64], line[4096];
	int vmas = 0, fd;
	FILE *maps;

	snprintf(name, sizeof(name), "/proc/%s/maps", pid);
	maps = fopen(name, "r");
	if (!maps)
		return 0;
	while (vmas < MOST_VMAS && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx", &start[vmas], &end[vmas]) == 2 && !(start[vmas] >> 63))
			vmas++;
	fclose(maps);
	snprintf(name, sizeof(name), "/proc/%s/pagemap", pid);
	fd = open(name, O_RDONLY);
	if (fd < 0)
		return 0;
	for (int vma = 0; vma < vmas; vma++) {
		unsigned long at = start[vma] / PAGE * 8, stop = end[vma] / PAGE * 8;

		while (at < stop) {
			unsigned long size = stop - at < sizeof(buffer) ? stop - at : sizeof(buffer);
			ssize_t got = pread(fd, buffer, size, at);

			if (got <= 0)
				break;
			at += got;
			entries += got / 8;
		}
	}
	close(fd);
	return entries;
}

static unsigned long read_rollup(const char *pid)
{
	unsigned long bytes = 0;
	char name[64];
	ssize_t got;
	int fd;

	snprintf(name, sizeof(name), "/proc/%s/smaps_rollup", pid);
	fd = open(name, O_RDONLY);
	if (fd < 0)
		return 0;
	while ((got = read(fd, buffer, sizeof(buffer))) > 0)
		bytes += got;
	close(fd);
	return bytes;
}

int main(int argc, char **argv)
{
	struct timespec began, now;
	unsigned long number = 0;

	if (argc == 7 && !strcmp(argv[1], "load"))
		return load(argv + 2);
	if (argc == 3 && !strcmp(argv[1], "scatter"))
		return scatter(atol(argv[2]));
	if (argc < 2)
		return 2;
	clock_gettime(CLOCK_MONOTONIC, &began);
	for (int at = 2; at < argc; at++)
		number += strcmp(argv[1], "pagemap") ? read_rollup(argv[at]) : read_pagemap(argv[at]);
	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("%.6f %lu\n", now.tv_sec - began.tv_sec + (now.tv_nsec - began.tv_nsec) / 1e9, number);
	return 0;
}
