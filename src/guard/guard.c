/* pgduet-guard: parent of one node's agent and postmaster, and PID 1 in a container.
 *
 * It decides nothing. It holds the guard lock while it lives, starts the agent again when that dies
 * or hangs, forks the postmaster when asked, and when the postmaster dies it kills and reaps every
 * PostgreSQL process of the node before it says so: backends whose postmaster was killed go on
 * committing for seconds, and only their new parent (subreaper) can know that the last is gone.
 *
 * Static, without libraries, so that it stays small and has no reason to crash. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guard/protocol.h"

enum { CHILDREN_MAX = 4096, ARGV_MAX = 64, AGENT_TIMEOUT = 20000, AGENT_YOUNG = 1000 };
enum { LOGGER_GRACE = 2000 };

static struct {
    char *arg[GUARD_ARGS]; /* the command line */

    pid_t agent, dead_agent; /* each agent leads a session of its own: pid = session id */
    int sock;                /* our end of the agent's socket, -1 without an agent */
    long agent_born, agent_seen, agent_due;

    pid_t postmaster;        /* 0: none */
    long reaping;            /* it ended, and from then on its children are killed */
    int exit_status, killed; /* how it ended, how many of them had to be killed */

    bool stopping;
    long stop_deadline;
} g = {.sock = -1};

static long now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int say(const char *format, ...)
{
    va_list args;

    fprintf(stderr, "pgduet-guard %s: ", g.arg[GUARD_NODE]);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return 1;
}

static void tell_agent(const char *format, ...)
{
    char text[GUARD_MESSAGE_MAX];
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (g.sock >= 0)
        send(g.sock, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Open without O_CREAT, lock, and check that it is the file made at init: `id` is "inode:nonce".
 * A lock file that was deleted and made anew would be granted to two guards. -2: held. */
static int take_lock(const char *path, const char *id, char *why, size_t size)
{
    char nonce[40] = "", found[80];
    struct stat opened, named;
    int fd = open(path, O_RDWR | O_CLOEXEC), tries = 0;

    if (fd < 0) {
        snprintf(why, size, "open lock %s: %s", path, strerror(errno));
        return -1;
    }
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) { /* somebody may only be looking */
        if (tries++ < 20 && usleep(10000) == 0)
            continue;
        snprintf(why, size, "%s is held by another process", path);
        close(fd);
        return -2;
    }
    if (fstat(fd, &opened) == 0 && stat(path, &named) == 0 && opened.st_ino == named.st_ino &&
        pread(fd, nonce, 32, 0) == 32) {
        snprintf(found, sizeof(found), "%llu:%s", (unsigned long long)opened.st_ino, nonce);
        if (strcmp(found, id) == 0)
            return fd;
    }
    snprintf(why, size, "lock file %s is not the one that was made at init", path);
    close(fd);
    return -1;
}

static void child_defaults(void)
{
    sigset_t none;

    for (int s = 1; s < NSIG; s++)
        signal(s, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The child: never returns into the parent's code. */
static void __attribute__((noreturn)) postmaster_child(char **argv, int report, pid_t parent)
{
    char why[512];
    int null,
        fd = take_lock(g.arg[GUARD_POSTGRES_LOCK], g.arg[GUARD_POSTGRES_LOCK_ID], why, sizeof(why));

    if (fd >= 0) {
        child_defaults();
        setsid();
        prctl(PR_SET_PDEATHSIG, SIGQUIT);
        null = open("/dev/null", O_RDONLY);
        if (getppid() == parent && null >= 0 && dup2(null, 0) == 0 &&
            dup2(fd, GUARD_LOCK_FD) == GUARD_LOCK_FD && fcntl(GUARD_LOCK_FD, F_SETFD, 0) == 0)
            execv(argv[0], argv);
        snprintf(why, sizeof(why), "start %s: %s", argv[0], strerror(errno));
    }
    _exit(write(report, why, strlen(why)) < 0 ? 127 : 126);
}

static void start_postmaster(char *text, size_t len)
{
    char *argv[ARGV_MAX + 1] = {0};
    char why[512] = "";
    pid_t self = getpid(), pid;
    int pipefd[2], n = 0;
    ssize_t got;

    if (g.postmaster != 0 || g.reaping != 0 || g.stopping) {
        tell_agent("%c%s", GUARD_FAILED, g.stopping ? "the guard is stopping" : "already running");
        return;
    }
    for (char *p = text; p < text + len && n < ARGV_MAX; p += strlen(p) + 1)
        argv[n++] = p;
    if (n == 0 || pipe2(pipefd, O_CLOEXEC) < 0) {
        tell_agent("%cpipe: %s", GUARD_FAILED, strerror(errno));
        return;
    }
    pid = fork();
    if (pid == 0)
        postmaster_child(argv, pipefd[1], self);
    close(pipefd[1]);
    got = pid < 0 ? 0 : read(pipefd[0], why, sizeof(why) - 1); /* ends with exec or exit */
    close(pipefd[0]);
    if (pid < 0 || got > 0) {
        if (pid > 0)
            waitpid(pid, NULL, 0);
        tell_agent("%c%s", GUARD_FAILED, pid < 0 ? "fork failed" : why);
        return;
    }
    g.postmaster = pid;
    tell_agent("%c%d", GUARD_STARTED, (int)pid);
}

/* Our direct children; orphans of dead children have become ours (subreaper). -1: unknown. */
static int list_children(pid_t *pids)
{
    FILE *f = fopen("/proc/thread-self/children", "re");
    int n = 0;

    if (f == NULL)
        return -1;
    while (n < CHILDREN_MAX && fscanf(f, "%d", &pids[n]) == 1)
        n++;
    fclose(f);
    return n;
}

/* A sibling's guard that our agent has started again is our child, but not our business. */
static bool is_guard(pid_t pid)
{
    char path[64], name[13] = "";
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, name, 12) < 0)
        name[0] = '\0';
    close(fd);
    return strcmp(name, "pgduet-guard") == 0;
}

/* Kill what no living agent or postmaster answers for: workers of a dead agent, and everything
 * that a dead postmaster left. What one left that ended by itself, its logger as a rule, gets a
 * moment to end, too. True when something may still be there. */
static bool sweep(void)
{
    static pid_t pids[CHILDREN_MAX];
    int n = list_children(pids);
    bool left = n < 0 || n == CHILDREN_MAX;

    for (int i = 0; i < n; i++) {
        pid_t session = getsid(pids[i]);
        bool agents = session > 0 && (session == g.agent || session == g.dead_agent);

        if (pids[i] == g.agent || pids[i] == g.postmaster)
            continue;
        if (agents ? session != g.dead_agent : g.postmaster != 0 || is_guard(pids[i]))
            continue;
        if ((!agents && now() < g.reaping) || (kill(pids[i], SIGKILL) == 0 && !agents))
            left = true;
    }
    return left;
}

static void agent_ended(int status)
{
    g.dead_agent = g.agent;
    g.agent = 0;
    close(g.sock);
    g.sock = -1;
    if (!g.stopping)
        say("agent ended (status %d), starting it again", status);
    /* one that cannot run must not be started in a tight loop */
    g.agent_due = now() + (now() - g.agent_born < AGENT_YOUNG ? AGENT_YOUNG : 0);
}

static void reap(void)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == g.postmaster) {
            g.postmaster = g.killed = 0;
            g.reaping = now() + (WIFEXITED(status) ? LOGGER_GRACE : 0); /* it has lines to write */
            g.exit_status = status;
        } else if (pid == g.agent) {
            agent_ended(status);
        } else if (g.reaping != 0) {
            g.killed += WIFSIGNALED(status);
        }
    }
    if (!sweep() && g.reaping != 0) {
        g.reaping = 0;
        tell_agent("%c%d %d", GUARD_ENDED, g.exit_status, g.killed);
    }
}

static void __attribute__((noreturn)) agent_child(int sock)
{
    char fd[16];

    child_defaults();
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* and without a guard its socket is at its end */
    snprintf(fd, sizeof(fd), "%d", sock);
    fcntl(sock, F_SETFD, 0);
    execl(g.arg[GUARD_AGENT], g.arg[GUARD_AGENT], "-C", g.arg[GUARD_DIR], "agent",
          g.arg[GUARD_NODE], "--guard-fd", fd, (char *)NULL);
    say("start %s: %s", g.arg[GUARD_AGENT], strerror(errno));
    _exit(126);
}

static void start_agent(void)
{
    int pair[2];

    g.agent_due = now() + AGENT_YOUNG;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return;
    g.agent = fork();
    if (g.agent == 0)
        agent_child(pair[1]);
    close(pair[1]);
    if (g.agent < 0) {
        g.agent = 0;
        close(pair[0]);
        return;
    }
    g.sock = pair[0];
    g.agent_born = g.agent_seen = now();
    tell_agent("%c%d", GUARD_HELLO, (int)g.postmaster);
}

static void hear_agent(void)
{
    static char text[GUARD_MESSAGE_MAX];
    ssize_t n;

    while ((n = recv(g.sock, text, sizeof(text) - 1, MSG_DONTWAIT)) > 0) {
        text[n] = '\0';
        g.agent_seen = now();
        if (text[0] == GUARD_START)
            start_postmaster(text + 1, (size_t)n - 1);
        else if (text[0] == GUARD_SIGNAL && g.postmaster != 0)
            kill(g.postmaster, (int)strtol(text + 1, NULL, 10));
    }
}

/* With an agent, stopping is its work; without one, or when it takes too long, ours. */
static void drive_stop(void)
{
    bool late = now() >= g.stop_deadline;

    if (g.agent != 0 && late) {
        say("the agent did not stop in time, ending it");
        kill(g.agent, SIGKILL);
    }
    if (g.agent == 0 && g.postmaster != 0)
        kill(g.postmaster, late ? SIGKILL : SIGINT);
    if (g.agent == 0 && g.postmaster == 0 && g.reaping == 0) {
        unlink(g.arg[GUARD_PID_FILE]);
        exit(0);
    }
}

static void check_agent(void)
{
    if (g.agent == 0 && !g.stopping && now() >= g.agent_due)
        start_agent();
    if (g.agent != 0 && now() - g.agent_seen > AGENT_TIMEOUT) {
        say("the agent has been silent for %d s, ending it", AGENT_TIMEOUT / 1000);
        g.agent_seen = now();
        kill(g.agent, SIGKILL);
    }
}

static void loop(int signals)
{
    struct signalfd_siginfo info;

    for (;;) {
        struct pollfd fds[2] = {{.fd = signals, .events = POLLIN},
                                {.fd = g.sock, .events = POLLIN}};

        /* While orphans die or the node stops, look often; else wake up for the agent's sake. */
        poll(fds, 2, g.stopping || g.reaping != 0 ? 20 : g.agent == 0 ? 100 : AGENT_TIMEOUT / 2);
        while (read(signals, &info, sizeof(info)) == sizeof(info))
            if (info.ssi_signo != SIGCHLD && !g.stopping) {
                g.stopping = true;
                g.stop_deadline = now() + strtol(g.arg[GUARD_STOP_TIMEOUT], NULL, 10);
                tell_agent("%c", GUARD_STOP);
            }
        reap();
        hear_agent();
        check_agent();
        if (g.stopping)
            drive_stop();
    }
}

int main(int argc, char **argv)
{
    char why[512];
    sigset_t mask;
    int signals, lock;
    FILE *pid_file;

    if (argc != GUARD_ARGS) {
        fputs("pgduet-guard is started by 'pgduet up' and 'pgduet agent', not by hand\n", stderr);
        return 2;
    }
    memcpy(g.arg, argv, sizeof(g.arg));
    close_range(3, ~0U, 0); /* the caller's; the postmaster's lock must get its descriptor */
    if (getenv("PGDUET_DAEMON") != NULL)
        setsid(); /* until now in the agent's session, which spares it from a sweep */
    sigemptyset(&mask);
    for (int i = 0; i < 3; i++)
        sigaddset(&mask, (int[]){SIGCHLD, SIGTERM, SIGINT}[i]);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (list_children((pid_t[CHILDREN_MAX]){0}) < 0)
        return say("this kernel does not tell a process its children (CONFIG_PROC_CHILDREN)");
    lock = take_lock(g.arg[GUARD_LOCK], g.arg[GUARD_LOCK_ID], why, sizeof(why));
    if (lock < 0) {
        say("%s", why);
        return lock == -2 ? GUARD_EXIT_HELD : 1;
    }
    pid_file = fopen(g.arg[GUARD_PID_FILE], "we");
    if (pid_file == NULL || fprintf(pid_file, "%d\n", (int)getpid()) < 0 || fclose(pid_file) != 0)
        say("write %s: %s", g.arg[GUARD_PID_FILE], strerror(errno));
    (void)!chdir("/");
    mlockall(MCL_CURRENT | MCL_FUTURE); /* best effort: Docker allows 8 MB */
    start_agent();
    loop(signals);
}
