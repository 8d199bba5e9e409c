/* Compiler vocabulary shared by every file, and the list of functions nobody may call.
 *
 * Include libc and library headers before this one: poisoned names may not appear after it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Milliseconds of the monotonic clock, or a duration. Wall clock is for people only. */
typedef int64_t msec;

void base_close_fd(int *fd);
void base_fclose(FILE **file);
void base_free(void *pointer_to_pointer);

/* Close or free when the variable goes out of scope. An fd below 0 and NULL are fine. */
#define AUTO_FD __attribute__((cleanup(base_close_fd))) int
#define AUTO_FILE __attribute__((cleanup(base_fclose))) FILE *
#define AUTO_FREE __attribute__((cleanup(base_free)))

/* Hand an fd over to somebody else: returns it and forgets it. */
static inline int fd_take(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

#pragma GCC poison strcpy strcat strncpy strncat sprintf vsprintf strtok atoi atol atof gets       \
    system popen
