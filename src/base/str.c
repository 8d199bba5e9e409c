/* Arena strings. */
#include <ctype.h>
#include <errno.h>

#include "base/str.h"

char *str_ndup(struct arena *arena, const char *text, size_t len)
{
    char *copy;

    if (text == NULL)
        return NULL;
    copy = arena_alloc(arena, len + 1);
    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

char *str_dup(struct arena *arena, const char *text)
{
    return text == NULL ? NULL : str_ndup(arena, text, strlen(text));
}

static char *vformat(struct arena *arena, const char *format, va_list args)
{
    va_list again;
    char *text;
    int n;

    va_copy(again, args);
    n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (n < 0)
        abort();
    text = arena_alloc(arena, (size_t)n + 1);
    vsnprintf(text, (size_t)n + 1, format, args);
    return text;
}

char *str_fmt(struct arena *arena, const char *format, ...)
{
    va_list args;
    char *text;

    va_start(args, format);
    text = vformat(arena, format, args);
    va_end(args);
    return text;
}

bool str_equal(const char *a, const char *b)
{
    if (a == NULL || b == NULL)
        return a == b;
    return strcmp(a, b) == 0;
}

bool str_starts(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *text, const char *suffix)
{
    size_t len = strlen(text);
    size_t suffix_len = strlen(suffix);

    return len >= suffix_len && strcmp(text + len - suffix_len, suffix) == 0;
}

char *str_trim(char *text)
{
    char *end;

    while (isspace((unsigned char)*text))
        text++;
    end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1]))
        end--;
    *end = '\0';
    return text;
}

bool str_to_int(const char *text, int64_t min, int64_t max, int64_t *ret, struct err *err)
{
    char *end;
    long long value;

    errno = 0;
    value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || isspace((unsigned char)text[0]))
        return err_set(err, ERR_INVALID, "'%s' is not a whole number", text);
    if (errno == ERANGE || value < min || value > max)
        return err_set(err, ERR_INVALID, "%s is not between %lld and %lld", text, (long long)min,
                       (long long)max);
    *ret = value;
    return true;
}

void str_add_len(struct str *str, const char *text, size_t len)
{
    if (str->cap - str->len < len + 1) {
        size_t cap = 2 * str->cap > str->len + len + 1 ? 2 * str->cap : str->len + len + 64;
        char *data = arena_alloc(str->arena, cap);

        if (str->len > 0)
            memcpy(data, str->data, str->len);
        str->data = data;
        str->cap = cap;
    }
    if (len > 0)
        memcpy(str->data + str->len, text, len);
    str->len += len;
    str->data[str->len] = '\0';
}

void str_add(struct str *str, const char *text)
{
    str_add_len(str, text, strlen(text));
}

void str_addf(struct str *str, const char *format, ...)
{
    va_list args;
    char *text;

    va_start(args, format);
    text = vformat(str->arena, format, args);
    va_end(args);
    str_add(str, text);
}

const char *str_text(const struct str *str)
{
    return str->data == NULL ? "" : str->data;
}
