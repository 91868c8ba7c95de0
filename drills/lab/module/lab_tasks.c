// SPDX-License-Identifier: MIT
/*
 * User space of guests that are meant to be dumped; runs without libraries of its own.
 *
 *   lab_tasks crowd N      makes N tasks that wait in as many ways as there are, says so, and stays
 *   lab_tasks freeze DIR   freezes the file system there, as fsfreeze does
 *   lab_tasks secrets MARK ANY   puts hush-WORD-MARK where secrets lie, for one WORD after the other, says so, and stays
 *   lab_tasks hugetlb      holds a huge page
 *   lab_tasks poison       tells the kernel that one of its pages is bad memory, and stays
 *   lab_tasks sockets      fills sockets that nobody reads, says so, and stays
 *   lab_tasks bpf          holds a BPF program, a socket filter that lets nothing through
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <arpa/inet.h>
#include <net/if.h>
#include <limits.h>
#include <linux/bpf.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS 8
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static int pipe_fds[2], pair_fds[2], epoll_fd, event_fd, inotify_fd, signal_fd, timer_fd, listen_fd;
static int queue, semaphores;
static int futex_word;

static void wait_nanosleep(void)
{
	struct timespec t = { 1000000, 0 };

	nanosleep(&t, NULL);
}

static void wait_pause(void)
{
	pause();
}

static void wait_pipe(void)
{
	char c;

	(void)!read(pipe_fds[0], &c, 1);
}

static void wait_poll(void)
{
	struct pollfd p = { pipe_fds[0], POLLIN, 0 };

	poll(&p, 1, -1);
}

static void wait_select(void)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(pipe_fds[0], &set);
	select(pipe_fds[0] + 1, &set, NULL, NULL, NULL);
}

static void wait_epoll(void)
{
	struct epoll_event e;

	epoll_wait(epoll_fd, &e, 1, -1);
}

static void wait_futex(void)
{
	syscall(SYS_futex, &futex_word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static void wait_signal(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigtimedwait(&set, NULL, NULL);
}

static void wait_accept(void)
{
	accept(listen_fd, NULL, NULL);
}

static void wait_recv(void)
{
	char c;

	recv(pair_fds[0], &c, 1, 0);
}

static void wait_flock(void)
{
	flock(open("/tmp/crowd.lock", O_RDWR | O_CREAT, 0600), LOCK_EX);
}

static void wait_record_lock(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	fcntl(open("/tmp/crowd.record", O_RDWR | O_CREAT, 0600), F_SETLKW, &lock);
}

static void wait_message(void)
{
	char message[64];

	msgrcv(queue, message, 8, 0, 0);
}

static void wait_semaphore(void)
{
	struct sembuf down = { 0, -1, 0 };

	semop(semaphores, &down, 1);
}

static void wait_eventfd(void)
{
	char count[8];

	(void)!read(event_fd, count, sizeof(count));
}

static void wait_inotify(void)
{
	char event[512];

	(void)!read(inotify_fd, event, sizeof(event));
}

static void wait_signalfd(void)
{
	char info[256];

	(void)!read(signal_fd, info, sizeof(info));
}

static void wait_timerfd(void)
{
	char count[8];

	(void)!read(timer_fd, count, sizeof(count));
}

static void wait_fifo(void)
{
	close(open("/tmp/crowd.fifo", O_RDONLY));
}

static void wait_stopped(void)
{
	raise(SIGSTOP);
}

/* Dead, and its parent does not ask for it. */
static void wait_buried(void)
{
	_exit(7);
}

static void *thread(void *number)
{
	char name[16];

	snprintf(name, sizeof(name), "thread/%ld", (long)number);
	prctl(PR_SET_NAME, name);
	for (;;)
		(long)number % 2 ? wait_futex() : wait_nanosleep();
	return NULL;
}

/* One process, THREADS tasks. */
static void wait_threads(void)
{
	pthread_attr_t attributes;
	pthread_t made;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN);
	for (long i = 1; i < THREADS; i++)
		pthread_create(&made, &attributes, thread, (void *)i);
	pause();
}

/* Two tasks: the parent is uninterruptible until the child of its vfork ends. */
static void wait_vfork(void)
{
	if (vfork() == 0) {
		syscall(SYS_pause);
		_exit(0);
	}
}

/* Two tasks: a parent in wait4, and a child that it traces and that has stopped. */
static void wait_traced(void)
{
	pid_t child = fork();

	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	pause();
}

/* Two tasks: a parent in wait4, and its child. */
static void wait_child(void)
{
	pid_t child = fork();

	if (child == 0) {
		pause();
		_exit(0);
	}
	waitpid(child, NULL, 0);
}

static const struct {
	const char *name;
	void (*wait)(void);
	int tasks;
} ways[] = {
	{ "nanosleep", wait_nanosleep, 1 }, { "pause", wait_pause, 1 },		  { "pipe", wait_pipe, 1 },
	{ "poll", wait_poll, 1 },	    { "select", wait_select, 1 },	  { "epoll", wait_epoll, 1 },
	{ "futex", wait_futex, 1 },	    { "signal", wait_signal, 1 },	  { "accept", wait_accept, 1 },
	{ "recv", wait_recv, 1 },	    { "flock", wait_flock, 1 },		  { "record lock", wait_record_lock, 1 },
	{ "message", wait_message, 1 },	    { "semaphore", wait_semaphore, 1 },	  { "eventfd", wait_eventfd, 1 },
	{ "inotify", wait_inotify, 1 },	    { "signalfd", wait_signalfd, 1 },	  { "timerfd", wait_timerfd, 1 },
	{ "fifo", wait_fifo, 1 },	    { "stopped", wait_stopped, 1 },	  { "buried", wait_buried, 1 },
	{ "threads", wait_threads, THREADS }, { "vfork", wait_vfork, 2 },	  { "traced", wait_traced, 2 },
	{ "child", wait_child, 2 },	    { "(paren) x", wait_pause, 1 },	  { "line\nbreak", wait_pause, 1 },
	{ "\xff\xfe not UTF-8", wait_pause, 1 }, { "", wait_pause, 1 },		  { "fifteen letters", wait_pause, 1 },
};

static const char *const groups[] = { "", "/web", "/web/worker", "/batch" };

static void write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fprintf(stderr, "lab: cannot write %s to %s: %s\n", text, path, strerror(errno));
	close(fd);
}

static void one(unsigned int number)
{
	const unsigned int way = number % COUNT(ways);
	struct sched_param priority = { 10 };
	char path[64];

	prctl(PR_SET_NAME, ways[way].name);
	snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cgroup.procs", groups[number / COUNT(ways) % COUNT(groups)]);
	write_to(path, "0");
	if (number % 7 == 3)
		setpriority(PRIO_PROCESS, 0, (int)(number % 40) - 20);
	if (number % 101 == 50)
		sched_setscheduler(0, SCHED_FIFO, &priority);
	if (number % 5 == 1)
		setsid();
	if (number % 3 == 2)
		(void)!setresuid(1000 + number % 4, 1000 + number % 4, 1000 + number % 4);
	ways[way].wait();
	/* Woken for whatever reason, or done: it stays. */
	for (;;)
		pause();
}

static void prepare(void)
{
	struct sockaddr_un address = { AF_UNIX, "/tmp/crowd.socket" };
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	const struct rlimit many = { 100000, 100000 };
	struct epoll_event event = { EPOLLIN, { 0 } };
	char path[64];
	sigset_t set;

	setrlimit(RLIMIT_NPROC, &many);
	(void)!pipe(pipe_fds);
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair_fds);
	epoll_fd = epoll_create1(0);
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, pipe_fds[0], &event);
	event_fd = eventfd(0, 0);
	inotify_fd = inotify_init();
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	signal_fd = signalfd(-1, &set, 0);
	timer_fd = timerfd_create(CLOCK_MONOTONIC, 0);
	listen_fd = socket(AF_UNIX, SOCK_STREAM, 0);
	bind(listen_fd, (struct sockaddr *)&address, sizeof(address));
	listen(listen_fd, 1);
	queue = msgget(IPC_PRIVATE, 0600);
	semaphores = semget(IPC_PRIVATE, 1, 0600);
	mkfifo("/tmp/crowd.fifo", 0600);
	flock(open("/tmp/crowd.lock", O_RDWR | O_CREAT, 0600), LOCK_EX);
	fcntl(open("/tmp/crowd.record", O_RDWR | O_CREAT, 0600), F_SETLK, &lock);
	for (unsigned int i = 1; i < COUNT(groups); i++) {
		snprintf(path, sizeof(path), "/sys/fs/cgroup%s", groups[i]);
		mkdir(path, 0755);
	}
}

static int crowd(int wanted)
{
	int tasks = 1;
	unsigned int number;

	prepare();
	prctl(PR_SET_NAME, "crowd");
	for (number = 0; tasks < wanted; number++) {
		const pid_t child = fork();

		if (child == 0)
			one(number);
		if (child < 0) {
			perror("lab: fork");
			break;
		}
		tasks += ways[number % COUNT(ways)].tasks;
	}
	printf("lab: a crowd of %d tasks\n", tasks);
	fflush(stdout);
	while (pause() < 0)
		;
	return 0;
}

static int freeze(const char *dir)
{
	const int fd = open(dir, O_RDONLY);

	if (fd < 0 || ioctl(fd, FIFREEZE, 0) < 0) {
		perror("lab: freeze");
		return 1;
	}
	return 0;
}

static char secret[256];

/* hush-WORD-MARK, the only copy of it in this process. */
static size_t make(const char *word, const char *mark)
{
	return snprintf(secret, sizeof(secret), "hush-%s-%s", word, mark);
}

static void forget(void)
{
	explicit_bzero(secret, sizeof(secret));
}

static void send_to_itself(int type, const char *word, const char *mark)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(here);
	const int in = socket(AF_INET, type, 0), out = socket(AF_INET, type, 0);

	if (bind(in, (struct sockaddr *)&here, size) < 0 || getsockname(in, (struct sockaddr *)&here, &size) < 0 ||
	    (type == SOCK_STREAM && listen(in, 1) < 0) || connect(out, (struct sockaddr *)&here, size) < 0 ||
	    send(out, secret, make(word, mark), 0) < 0)
		perror("lab: socket");
}

static void hide_in_tty(const char *mark)
{
	const int master = open("/dev/ptmx", O_RDWR | O_NOCTTY);
	const int zero = 0;
	char path[32];
	unsigned int number = 0;

	if (master < 0 || ioctl(master, TIOCSPTLCK, &zero) < 0 || ioctl(master, TIOCGPTN, &number) < 0) {
		perror("lab: ptmx");
		return;
	}
	snprintf(path, sizeof(path), "/dev/pts/%u", number);
	if (open(path, O_RDWR | O_NOCTTY) < 0)
		perror("lab: pts");
	/* A password that is typed, and not yet read. */
	(void)!write(master, secret, make("tty", mark));
}

static int secrets(const char *mark)
{
	struct ifreq loopback = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fds[2], fd;
	char *heap;

	ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCSIFFLAGS, &loopback);
	/* Every one in its own place, for as long as this lives. */
	(void)!pipe(fds);
	(void)!write(fds[1], secret, make("pipe", mark));
	socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
	(void)!write(fds[1], secret, make("unix", mark));
	send_to_itself(SOCK_DGRAM, "udp", mark);
	send_to_itself(SOCK_STREAM, "tcp", mark);
	if (syscall(SYS_add_key, "user", "lab", secret, make("key", mark), KEY_SPEC_SESSION_KEYRING) < 0)
		perror("lab: add_key");
	if (syscall(SYS_add_key, "logon", "lab:logon", secret, make("logon", mark), KEY_SPEC_SESSION_KEYRING) < 0)
		perror("lab: add_key");
	hide_in_tty(mark);
	make("name", mark);
	(void)!chdir("/tmp");
	fd = open(secret, O_RDWR | O_CREAT, 0600);
	(void)!write(fd, secret, make("file", mark));
	/* What is freed keeps its bytes, until somebody takes its place: so several. */
	socketpair(AF_UNIX, SOCK_DGRAM, 0, fds);
	for (int i = 0; i < 8; i++)
		(void)!write(fds[1], secret, make("gone", mark));
	for (int i = 0; i < 8; i++)
		(void)!read(fds[0], secret, sizeof(secret));
	forget();
	heap = malloc(64);
	snprintf(heap, 64, "hush-%s-%s", "heap", mark);
	puts("lab: secrets are hidden");
	fflush(stdout);
	for (;;)
		pause();
}

/* Says what it has, and keeps it. */
static int stay(const char *what)
{
	printf("lab: holds %s\n", what);
	fflush(stdout);
	while (pause() < 0)
		;
	return 0;
}

static int hugetlb(void)
{
	char *page = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (page == MAP_FAILED) {
		perror("lab: hugetlb");
		return 1;
	}
	*page = 1;
	return stay("a huge page");
}

static int bpf(void)
{
	const struct bpf_insn program[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr load = {
		.prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
		.insns = (__u64)(unsigned long)program,
		.insn_cnt = COUNT(program),
		.license = (__u64)(unsigned long)"Dual MIT/GPL",
		.prog_name = "lab_filter",
	};

	if (syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof(load)) < 0) {
		perror("lab: bpf");
		return 1;
	}
	return stay("a BPF program");
}

static int poison(void)
{
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return 1;
	memset(page, 1, 4096);
	if (madvise(page, 4096, MADV_HWPOISON) < 0)
		perror("lab: MADV_HWPOISON");
	while (pause() < 0)
		;
	return 0;
}

/* Sends until the other side takes no more. */
static void fill_up(int fd)
{
	static const char bytes[1024];

	while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		;
}

static int bound(int type, struct sockaddr_in *here)
{
	socklen_t size = sizeof(*here);
	const int in = socket(AF_INET, type, 0);

	if (bind(in, (struct sockaddr *)here, size) < 0 || getsockname(in, (struct sockaddr *)here, &size) < 0)
		perror("lab: bind");
	return in;
}

static int sockets(void)
{
	struct sockaddr_in tcp = { .sin_family = AF_INET, .sin_port = htons(7001), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in full = { .sin_family = AF_INET, .sin_port = htons(7002), .sin_addr.s_addr = inet_addr("192.0.2.7") };
	struct sockaddr_in udp = { .sin_family = AF_INET, .sin_port = htons(7003), .sin_addr.s_addr = inet_addr("198.51.100.1") };
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons(7004), .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_un name = { AF_UNIX, "/tmp/work/full.socket" };
	int in, out, pair[2];

	/* A connection whose receiver does not read, and whose sender waits. */
	in = bound(SOCK_STREAM, &tcp);
	listen(in, 8);
	out = socket(AF_INET, SOCK_STREAM, 0);
	connect(out, (struct sockaddr *)&tcp, sizeof(tcp));
	if (accept(in, NULL, NULL) < 0)
		perror("lab: accept");
	fill_up(out);
	if (fork() == 0) {
		prctl(PR_SET_NAME, "lab_sender");
		(void)!send(out, "more", 4, 0);
	}
	/* A listener whose connections nobody accepts. */
	in = bound(SOCK_STREAM, &full);
	listen(in, 2);
	for (int i = 0; i < 5; i++) {
		out = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		connect(out, (struct sockaddr *)&full, sizeof(full));
	}
	/* Datagrams, of which the receiver's queue takes some. */
	bound(SOCK_DGRAM, &udp);
	out = socket(AF_INET, SOCK_DGRAM, 0);
	connect(out, (struct sockaddr *)&udp, sizeof(udp));
	for (int i = 0; i < 2000; i++)
		(void)!send(out, name.sun_path, 64, MSG_DONTWAIT);
	in = socket(AF_INET6, SOCK_STREAM, 0);
	if (bind(in, (struct sockaddr *)&six, sizeof(six)) < 0 || listen(in, 4) < 0)
		perror("lab: IPv6");
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	fill_up(pair[0]);
	in = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(in, (struct sockaddr *)&name, sizeof(name)) < 0 || listen(in, 1) < 0)
		perror("lab: unix");
	for (int i = 0; i < 3; i++) {
		out = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		connect(out, (struct sockaddr *)&name, sizeof(name));
	}
	printf("lab: the sockets are full\n");
	fflush(stdout);
	while (pause() < 0)
		;
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "hugetlb") == 0)
		return hugetlb();
	if (argc == 2 && strcmp(argv[1], "bpf") == 0)
		return bpf();
	if (argc == 2 && strcmp(argv[1], "poison") == 0)
		return poison();
	if (argc == 2 && strcmp(argv[1], "sockets") == 0)
		return sockets();
	if (argc == 3 && strcmp(argv[1], "crowd") == 0)
		return crowd(atoi(argv[2]));
	if (argc == 3 && strcmp(argv[1], "freeze") == 0)
		return freeze(argv[2]);
	if (argc == 4 && strcmp(argv[1], "secrets") == 0)
		return secrets(argv[2]);
	return 2;
}
