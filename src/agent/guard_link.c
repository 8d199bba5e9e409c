/* Messages to and from the guard; guard/protocol.h lists them. */
#include <errno.h>
#include <sys/socket.h>

#include "agent/guard_link.h"
#include "guard/protocol.h"

static void hear_ended(struct guard_link *link, const char *text)
{
    if (sscanf(text, "%d %d", &link->exit_status, &link->leftovers) != 2)
        link->exit_status = -1;
    link->postmaster = 0;
    link->ended++;
}

static void hear(struct guard_link *link, const char *text)
{
    switch (text[0]) {
    case GUARD_HELLO:
        link->greeted = true;
        link->postmaster = (pid_t)strtol(text + 1, NULL, 10);
        break;
    case GUARD_STARTED:
        link->failed[0] = '\0';
        link->postmaster = (pid_t)strtol(text + 1, NULL, 10);
        break;
    case GUARD_FAILED:
        snprintf(link->failed, sizeof(link->failed), "%.*s", (int)sizeof(link->failed) - 1,
                 text + 1);
        break;
    case GUARD_ENDED:
        hear_ended(link, text + 1);
        break;
    case GUARD_STOP:
        link->stop_wanted = true;
        break;
    default:
        break;
    }
}

bool guard_link_hear(struct guard_link *link)
{
    char text[GUARD_MESSAGE_MAX + 1];
    ssize_t n;

    while ((n = recv(link->fd, text, GUARD_MESSAGE_MAX, MSG_DONTWAIT)) > 0) {
        text[n] = '\0';
        hear(link, text);
    }
    return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static bool tell(const struct guard_link *link, const char *text, size_t len, struct err *err)
{
    if (send(link->fd, text, len, MSG_NOSIGNAL) != (ssize_t)len)
        return err_set(err, ERR_IO, "talk to the guard: %m");
    return true;
}

bool guard_link_start(struct guard_link *link, const char *const *argv, struct err *err)
{
    char text[GUARD_MESSAGE_MAX];
    size_t len = 1;

    text[0] = GUARD_START;
    link->failed[0] = '\0';
    for (; *argv != NULL; argv++) {
        size_t n = strlen(*argv) + 1;

        if (len + n > sizeof(text))
            return err_set(err, ERR_INVALID, "the server's command line is too long");
        memcpy(text + len, *argv, n);
        len += n;
    }
    return tell(link, text, len, err);
}

void guard_link_signal(struct guard_link *link, int signal)
{
    char text[16];
    int n = snprintf(text, sizeof(text), "%c%d", GUARD_SIGNAL, signal);
    struct err ignored;

    /* a guard that is gone takes this process with it */
    (void)!tell(link, text, (size_t)n, &ignored);
}

void guard_link_ping(struct guard_link *link)
{
    struct err ignored;

    (void)!tell(link, (const char[]){GUARD_PING}, 1, &ignored);
}
