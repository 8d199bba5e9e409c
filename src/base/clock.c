/* Clocks. */
#include <errno.h>
#include <limits.h>
#include <time.h>

#include "base/clock.h"

msec clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (msec)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

const char *clock_wall_iso(struct arena *arena)
{
    struct timespec now;
    struct tm tm;
    char date[32];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    return str_fmt(arena, "%s.%03ldZ", date, now.tv_nsec / 1000000);
}

int64_t clock_wall_seconds(void)
{
    return (int64_t)time(NULL);
}

int clock_left(msec deadline, msec cap)
{
    msec left = deadline - clock_now();

    if (left > cap)
        left = cap;
    if (left < 0)
        return 0;
    return (int)(left > INT_MAX ? INT_MAX : left);
}

void clock_pause(msec duration)
{
    struct timespec time = {.tv_sec = duration / 1000, .tv_nsec = duration % 1000 * 1000000};

    while (nanosleep(&time, &time) < 0 && errno == EINTR)
        ;
}
