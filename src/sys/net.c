/* Is a port free, and who has it if not. The kernel is asked by binding; the name of the holder
 * comes from /proc: port to socket inode, inode to the process that has it open. */
#include "sys/net.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sys/socket.h>

#include "sys/fs.h"
#include "sys/proc.h"

#define COMMAND_MAX 60
#define STATE_LISTEN 0x0a

/* An address as /proc/net/tcp and tcp6 write it; IPv4 is mapped into IPv6. */
struct place {
    uint32_t word[4];
    int port;
};

struct holder {
    uint64_t inode;
    uid_t uid;
};

static void map_ipv4(struct place *place, uint32_t address)
{
    *place = (struct place){.word = {0, 0, htonl(0xffff), address}, .port = place->port};
}

static bool is_wildcard(const struct place *place)
{
    uint32_t mapped = htonl(0xffff);

    return place->word[0] == 0 && place->word[1] == 0 && place->word[3] == 0 &&
           (place->word[2] == 0 || place->word[2] == mapped);
}

static struct place place_of(const struct sockaddr *address)
{
    struct place place = {0};

    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)address;

        place.port = ntohs(in->sin_port);
        map_ipv4(&place, in->sin_addr.s_addr);
    } else {
        const struct sockaddr_in6 *in6 = (const void *)address;

        place.port = ntohs(in6->sin6_port);
        memcpy(place.word, &in6->sin6_addr, sizeof(place.word));
    }
    return place;
}

/* "0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000  0 4711 …" */
static bool parse_line(const char *line, struct place *ret, unsigned int *ret_state,
                       struct holder *ret_holder)
{
    char local[33];
    unsigned int port;
    struct place place = {0};

    if (sscanf(line, " %*[0-9]: %32[0-9A-F]:%x %*[0-9A-F]:%*x %x %*s %*s %*s %u %*s %" SCNu64,
               local, &port, ret_state, &ret_holder->uid, &ret_holder->inode) != 5)
        return false;
    place.port = (int)port;
    if (strlen(local) == 8)
        map_ipv4(&place, (uint32_t)strtoul(local, NULL, 16));
    else if (sscanf(local, "%8" SCNx32 "%8" SCNx32 "%8" SCNx32 "%8" SCNx32, &place.word[0],
                    &place.word[1], &place.word[2], &place.word[3]) != 4)
        return false;
    *ret = place;
    return true;
}

/* A listening socket on that place; if there is none, any other. */
static void search_list(const char *path, const struct place *wanted, struct holder *found,
                        bool *found_listening)
{
    AUTO_FILE list = fopen(path, "re");
    char line[512];

    while (list != NULL && !*found_listening && fgets(line, sizeof(line), list) != NULL) {
        struct holder holder;
        struct place place;
        unsigned int state;

        if (!parse_line(line, &place, &state, &holder) || place.port != wanted->port)
            continue;
        if (!is_wildcard(wanted) && !is_wildcard(&place) &&
            memcmp(place.word, wanted->word, sizeof(place.word)) != 0)
            continue;
        /* Sockets that only wait for their end have no inode. */
        if (holder.inode == 0)
            continue;
        *found = holder;
        *found_listening = state == STATE_LISTEN;
    }
}

static bool process_has(const char *fds, const char *socket_name)
{
    DIR *dir = opendir(fds);
    struct dirent *entry;
    bool has = false;

    while (dir != NULL && !has && (entry = readdir(dir)) != NULL) {
        char target[64];
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

        if (n < 0)
            continue;
        target[n] = '\0';
        has = str_equal(target, socket_name);
    }
    if (dir != NULL)
        closedir(dir);
    return has;
}

/* The lowest pid: a parent is older than the children that inherited its socket. */
static pid_t find_process(struct arena *arena, uint64_t inode)
{
    const char *socket_name = str_fmt(arena, "socket:[%" PRIu64 "]", inode);
    struct err err = ERR_INIT;
    const char **names;
    int64_t lowest = 0;
    size_t n;

    if (!fs_list(arena, "/proc", &names, &n, &err))
        return 0;
    for (size_t i = 0; i < n; i++) {
        int64_t pid;

        if (!str_to_int(names[i], 1, INT32_MAX, &pid, &err) || (lowest != 0 && pid > lowest))
            continue;
        if (process_has(str_fmt(arena, "/proc/%s/fd", names[i]), socket_name))
            lowest = pid;
    }
    return (pid_t)lowest;
}

static const char *describe_holder(struct arena *arena, const struct sockaddr *address)
{
    struct place wanted = place_of(address);
    struct holder holder = {0};
    bool listening = false;
    const struct passwd *user;
    const char *command;
    pid_t pid;

    if (address->sa_family == AF_INET)
        search_list("/proc/net/tcp", &wanted, &holder, &listening);
    /* A socket of IPv6 may hold the port for IPv4, too. */
    if (!listening)
        search_list("/proc/net/tcp6", &wanted, &holder, &listening);
    if (holder.inode == 0)
        return "by a process that cannot be seen from here";
    pid = find_process(arena, holder.inode);
    if (pid > 0) {
        command = proc_command_line(arena, pid, COMMAND_MAX);
        return str_fmt(arena, "by pid %d (%s)", pid, command != NULL ? command : "?");
    }
    user = getpwuid(holder.uid);
    if (holder.uid == geteuid())
        return "by a process that cannot be seen from here";
    if (user == NULL)
        return str_fmt(arena, "by a process of another user (id %u)", holder.uid);
    return str_fmt(arena, "by a process of another user (%s)", user->pw_name);
}

/* 0, or the errno. */
static int try_bind(const struct addrinfo *address)
{
    AUTO_FD fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;

    if (fd < 0)
        return errno;
    /* PostgreSQL sets both: connections that are about to end do not count, and "::" leaves the
     * IPv4 half of the port alone. */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (address->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    return bind(fd, address->ai_addr, address->ai_addrlen) < 0 ? errno : 0;
}

static bool check_addresses(struct arena *arena, const struct addrinfo *list, const char *host,
                            int port, struct err *err)
{
    bool any = false;
    int last = 0;

    for (const struct addrinfo *address = list; address != NULL; address = address->ai_next) {
        int failed = try_bind(address);

        if (failed == EADDRINUSE)
            return err_set(err, ERR_CONFLICT, "port %d on '%s' is taken %s", port, host,
                           describe_holder(arena, address->ai_addr));
        if (failed == 0)
            any = true;
        else
            last = failed;
    }
    /* "localhost" often has an IPv6 address on machines without IPv6. */
    if (any)
        return true;
    errno = last;
    return err_set(err, ERR_IO, "cannot listen on port %d of '%s': %m", port, host);
}

static bool resolve(const char *host, int port, struct addrinfo **ret, struct err *err)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    char service[16];
    int failed;

    snprintf(service, sizeof(service), "%d", port);
    failed = getaddrinfo(str_equal(host, "*") ? NULL : host, service, &hints, ret);
    return failed == 0 || err_set(err, ERR_IO, "cannot resolve host '%s': %s", host,
                                  failed == EAI_SYSTEM ? strerror(errno) : gai_strerror(failed));
}

bool net_can_listen(const char *host, struct err *err)
{
    struct addrinfo *list = NULL;
    int failed = EADDRNOTAVAIL;

    if (!resolve(host, 0, &list, err))
        return false;
    for (const struct addrinfo *address = list; failed != 0 && address != NULL;
         address = address->ai_next)
        failed = try_bind(address);
    freeaddrinfo(list);
    errno = failed;
    return failed == 0 || err_set(err, ERR_IO, "cannot listen on '%s': %m", host);
}

bool net_port_free(struct arena *arena, const char *host, int port, struct err *err)
{
    struct addrinfo *list = NULL;
    bool is_free;

    if (port < 1 || port > 65535)
        return err_set(err, ERR_INVALID, "%d is no port number", port);
    if (!resolve(host, port, &list, err))
        return false;
    is_free = check_addresses(arena, list, host, port, err);
    freeaddrinfo(list);
    return is_free;
}
