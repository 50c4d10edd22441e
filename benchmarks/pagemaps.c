/* How long the kernel takes to hand over the pagemaps of some processes: every VMA, 64 KiB at a time.
 *
 *   pagemaps ROUNDS PID...      prints the seconds of each round, and the entries read
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 16];

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static long read_range(int fd, unsigned long start, unsigned long end)
{
	long entries = 0;
	unsigned long page = start >> 12, last = end >> 12;

	while (page < last) {
		size_t wanted = (last - page) * 8 < sizeof(buffer) ? (last - page) * 8 : sizeof(buffer);
		ssize_t got = pread(fd, buffer, wanted, page * 8);
		if (got <= 0)
			break;
		entries += got / 8;
		page += got / 8;
	}
	return entries;
}

static long read_process(const char *pid)
{
	char path[64], line[4096];
	long entries = 0;
	unsigned long start, end;
	snprintf(path, sizeof(path), "/proc/%s/maps", pid);
	FILE *maps = fopen(path, "r");
	snprintf(path, sizeof(path), "/proc/%s/pagemap", pid);
	int fd = open(path, O_RDONLY);

	while (maps && fd >= 0 && fgets(line, sizeof(line), maps))
		if (!strstr(line, "[vsyscall]") && sscanf(line, "%lx-%lx", &start, &end) == 2)
			entries += read_range(fd, start, end);
	if (maps)
		fclose(maps);
	if (fd >= 0)
		close(fd);
	return entries;
}

int main(int argc, char **argv)
{
	for (int round = 0; argc > 2 && round < atoi(argv[1]); round++) {
		double began = now();
		long entries = 0;
		for (int i = 2; i < argc; i++)
			entries += read_process(argv[i]);
		printf("%.6f %ld\n", now() - began, entries);
	}
	return 0;
}
