/*
 * A puppet: a real process that makes, one at a time, the memory calls it is told to make.
 *
 *     puppet SOCKET CPU
 *
 * SOCKET is a name in the abstract namespace, which no file system holds.
 *
 * The first process is the root of all others. It prepares an address space like the one the model starts with (no randomisation,
 * nothing mapped where mmap places things, an empty heap at START_BRK, no huge pages), connects to SOCKET and waits for
 * requests. Every child it or another puppet makes connects to SOCKET by itself, greets with its pid and waits
 * likewise. A request is six numbers and perhaps a file descriptor; an answer is two: the result and errno.
 *
 * All of them stay on one CPU, and between calls its batches of pages are emptied (DRAIN): a page that waits in one has
 * a reference more, and is copied where it could be taken over. Whoever loses its connection exits; nobody leaves a
 * zombie; orphans go to the root, which dies with its parent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/prctl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define PAGE 4096UL
#define START_BRK 0x555555559000UL
#define STACK_LIMIT (8UL << 20) /* sets where mmap begins */
#define MMAP_AREA 0x700000000000UL /* only the kernel's own mappings and the stack start above this */
#define BORROWERS 16

/* As PROTOCOL in program.py, which looks for it in a built program. */
static const char protocol[] __attribute__((used)) = "rmap puppet protocol 4";

/* Same order as OPERATIONS in puppets.py. */
enum operation { READ, WRITE, FORK, BORROW, TAKE_FILE, EXIT, DRAIN, MMAP, MUNMAP, MPROTECT, MREMAP, MADVISE, MLOCK, MLOCK2, MUNLOCK,
		 MLOCKALL, MUNLOCKALL, BRK };

static const long SYSCALL_OF[] = {
	[MMAP] = SYS_mmap, [MUNMAP] = SYS_munmap, [MPROTECT] = SYS_mprotect, [MREMAP] = SYS_mremap,
	[MADVISE] = SYS_madvise, [MLOCK] = SYS_mlock, [MLOCK2] = SYS_mlock2, [MUNLOCK] = SYS_munlock,
	[MLOCKALL] = SYS_mlockall, [MUNLOCKALL] = SYS_munlockall, [BRK] = SYS_brk
};

struct request { int64_t operation; uint64_t arg[6]; };
struct answer { int64_t result, error; };

static struct sockaddr_un judge = { .sun_family = AF_UNIX };
static socklen_t judge_length;
static sigjmp_buf refused;
static char borrowed_stack[BORROWERS][4 * PAGE];
static char never_touched[PAGE] __attribute__((aligned(4096)));
static int borrowers;

static void serve(void);

static void stop(const char *what)
{
	fprintf(stderr, "puppet: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static void on_fault(int signal)
{
	siglongjmp(refused, signal);
}

/* Empties this CPU's batches: MADV_COLD does that first, and finds nothing to do then. Refused to a locked process. */
static struct answer drain(void)
{
	int result = madvise(never_touched, PAGE, MADV_COLD);

	return (struct answer){ result, result ? errno : 0 };
}

/* Touches pages one by one up to the first that is refused. The answer is how many were touched, and the signal. */
static struct answer touch(enum operation how, uint64_t address, uint64_t pages)
{
	static volatile uint64_t done;
	int signal = sigsetjmp(refused, 1);

	if (!signal) {
		for (done = 0; done < pages; done++) {
			volatile char *p = (volatile char *)(address + done * PAGE);

			if (how == READ)
				(void)*p;
			else
				*p = 1;
			drain();
		}
	}
	return (struct answer){ done, signal };
}

static void serve_and_exit(int inherited)
{
	close(inherited);
	serve();
	_exit(0);
}

static struct answer make_child(int connection)
{
	pid_t pid = fork();

	if (!pid)
		serve_and_exit(connection);
	return (struct answer){ pid, pid < 0 ? errno : 0 };
}

static int borrower(void *inherited)
{
	serve_and_exit((int)(intptr_t)inherited);
	return 0;
}

/* A child in the same address space, on a stack of its own. Under CLONE_VFORK the answer comes when it is gone. */
static struct answer lend_address_space(uint64_t vfork, int connection)
{
	int flags = CLONE_VM | (vfork ? CLONE_VFORK : 0) | SIGCHLD;
	pid_t pid;

	if (borrowers == BORROWERS)
		return (struct answer){ -1, EAGAIN };
	pid = clone(borrower, borrowed_stack[++borrowers - 1] + sizeof(borrowed_stack[0]), flags,
		    (void *)(intptr_t)connection);
	return (struct answer){ pid, pid < 0 ? errno : 0 };
}

static struct answer perform(const struct request *r, int connection, int file)
{
	const uint64_t *a = r->arg;
	long result;

	switch (r->operation) {
	case READ:
	case WRITE:
		return touch(r->operation, a[0], a[1]);
	case FORK:
		return make_child(connection);
	case BORROW:
		return lend_address_space(a[0], connection);
	case TAKE_FILE:
		return (struct answer){ file, 0 };
	case DRAIN:
		return drain();
	case EXIT:
		_exit(0);
	default:
		result = syscall(SYSCALL_OF[r->operation], a[0], a[1], a[2], a[3], a[4], a[5]);
		return (struct answer){ result, result == -1 ? errno : 0 };
	}
}

/* One request, with the file that came with it or -1. False when nobody asks any more. */
static int receive(int connection, struct request *r, int *file)
{
	union { char room[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	struct iovec data = { r, sizeof(*r) };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header;

	if (recvmsg(connection, &message, 0) != sizeof(*r))
		return 0;
	header = CMSG_FIRSTHDR(&message);
	*file = -1;
	if (header && header->cmsg_type == SCM_RIGHTS)
		memcpy(file, CMSG_DATA(header), sizeof(*file));
	return 1;
}

static void serve(void)
{
	int connection = socket(AF_UNIX, SOCK_SEQPACKET, 0), file;
	struct answer greeting = { getpid(), 0 }, answer;
	struct request request;

	if (connection < 0 || connect(connection, (struct sockaddr *)&judge, judge_length))
		stop("connect");
	if (write(connection, &greeting, sizeof(greeting)) != sizeof(greeting))
		stop("greeting");
	while (receive(connection, &request, &file)) {
		answer = perform(&request, connection, file);
		if (write(connection, &answer, sizeof(answer)) != sizeof(answer))
			return;
	}
}

/* Things that only hold from the next exec on: no randomisation, and the stack limit that decides where mmap begins. */
static void exec_without_randomisation(char **argv)
{
	struct rlimit stack;

	if (personality(0xffffffff) & ADDR_NO_RANDOMIZE)
		return;
	if (getrlimit(RLIMIT_STACK, &stack))
		stop("getrlimit");
	stack.rlim_cur = STACK_LIMIT;
	if (setrlimit(RLIMIT_STACK, &stack))
		stop("setrlimit");
	if (personality(ADDR_NO_RANDOMIZE) < 0)
		stop("personality");
	execv("/proc/self/exe", argv);
	stop("exec");
}

/* Unmaps what the kernel put where mmap places things: the vDSO and its data. Nothing here calls them. */
static void clear_mmap_area(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start[16], end[16];
	char line[512];
	int found = 0;

	if (!maps)
		stop("/proc/self/maps");
	while (found < 16 && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx", &start[found], &end[found]) == 2 && start[found] >= MMAP_AREA &&
		    !strstr(line, "[stack]") && !strstr(line, "[vsyscall]"))
			found++;
	fclose(maps);
	while (found--)
		if (munmap((void *)start[found], end[found] - start[found]))
			stop("munmap");
}

/* An empty heap where the model's begins. Without this right the heap is elsewhere; the judge sees that by brk(0). */
static void place_heap(void)
{
	extern char __executable_start[], etext[], edata[], end[];
	struct prctl_mm_map map = {
		.start_code = (uint64_t)__executable_start, .end_code = (uint64_t)etext,
		.start_data = (uint64_t)etext, .end_data = (uint64_t)edata,
		.start_brk = START_BRK, .brk = START_BRK, .start_stack = (uint64_t)__builtin_frame_address(0),
		.arg_start = (uint64_t)end, .arg_end = (uint64_t)end, .env_start = (uint64_t)end,
		.env_end = (uint64_t)end, .exe_fd = -1
	};

	prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0);
}

static void stay_on(int cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		stop("sched_setaffinity");
}

int main(int argc, char **argv)
{
	struct sigaction caught = { .sa_handler = on_fault }, ignored = { .sa_handler = SIG_IGN };

	if (argc != 3 || strlen(argv[1]) >= sizeof(judge.sun_path) - 1)
		return 2;
	exec_without_randomisation(argv);
	strcpy(judge.sun_path + 1, argv[1]);
	judge_length = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(argv[1]);
	stay_on(atoi(argv[2]));
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || prctl(PR_SET_CHILD_SUBREAPER, 1))
		stop("prctl");
	if (prctl(PR_SET_NAME, "rmap-puppet"))
		stop("prctl(PR_SET_NAME)");
	if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
		stop("prctl(PR_SET_THP_DISABLE)");
	sigaction(SIGSEGV, &caught, NULL);
	sigaction(SIGBUS, &caught, NULL);
	sigaction(SIGCHLD, &ignored, NULL);
	clear_mmap_area();
	place_heap();
	serve();
	return 0;
}
