/* Cleanup handlers behind the AUTO_ macros. They keep errno, so that a caller of a function that
 * failed can still put %m into its error. */
#include "base/base.h"

#include <errno.h>

void base_close_fd(int *fd)
{
    int saved = errno;

    /* EINTR is not retried: on Linux the descriptor is gone either way. */
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    errno = saved;
}

void base_fclose(FILE **file)
{
    int saved = errno;

    if (*file != NULL)
        fclose(*file);
    *file = NULL;
    errno = saved;
}

void base_free(void *pointer_to_pointer)
{
    void **pointer = pointer_to_pointer;

    free(*pointer);
    *pointer = NULL;
}
