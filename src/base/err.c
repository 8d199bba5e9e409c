/* The error object: see err.h for the rules of its use. */
#include <errno.h>
#include <stdarg.h>

#include "base/err.h"

/* Through a second buffer: the arguments may point into the text that is replaced. */
static void put(char *buf, size_t size, const char *format, va_list args)
{
    char text[sizeof(((struct err *)NULL)->text)];
    int n = vsnprintf(text, sizeof(text), format, args);
    size_t len = n < 0 ? 0 : (size_t)n;

    if (len < size) {
        memcpy(buf, text, len);
        buf[len] = '\0';
        return;
    }
    memcpy(buf, text, size - 4);
    memcpy(buf + size - 4, "...", 4);
}

PRINTF_LIKE(3, 4) static void put_parts(char *buf, size_t size, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    put(buf, size, format, args);
    va_end(args);
}

bool err_set(struct err *err, enum err_kind kind, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    put(err->text, sizeof(err->text), format, args);
    va_end(args);
    err->kind = kind;
    err->hint[0] = '\0';
    return false;
}

bool err_wrap(struct err *err, const char *format, ...)
{
    char outer[sizeof(err->text)];
    va_list args;

    va_start(args, format);
    put(outer, sizeof(outer), format, args);
    va_end(args);
    put_parts(err->text, sizeof(err->text), "%s: %s", outer, err->text);
    return false;
}

bool err_hint(struct err *err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    put(err->hint, sizeof(err->hint), format, args);
    va_end(args);
    return false;
}

void err_print(const struct err *err)
{
    fprintf(stderr, "pgduet: %s", err->text);
    if (err->hint[0] != '\0')
        fprintf(stderr, "; hint: %s", err->hint);
    fputc('\n', stderr);
}
