/*
 * Nothing but operations on memory, the worst case of a recorder: mmap, touch a page, mprotect, madvise, munmap, over
 * and over. Prints nanoseconds per operation.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE 4096L
#define PAGES 1

int main(int argc, char **argv)
{
	long turns = argc > 1 ? atol(argv[1]) : 20000;
	struct timespec begin, end;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (long turn = 0; turn < turns; turn++) {
		char *p = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			return 1;
		for (int page = 0; page < PAGES; page++)
			p[page * PAGE] = 1;
		if (mprotect(p, PAGES * PAGE, PROT_READ) || madvise(p, PAGES * PAGE, MADV_DONTNEED) ||
		    munmap(p, PAGES * PAGE))
			return 1;
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%.1f\n", ((end.tv_sec - begin.tv_sec) * 1e9 + (end.tv_nsec - begin.tv_nsec)) / (turns * 5.0));
	return 0;
}
