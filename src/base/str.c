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

/* One word from *at on, which stands behind it afterwards. */
static bool take_word(const char **at, struct str *word, struct err *err)
{
    char quote = '\0';
    const char *c = *at;

    for (; *c != '\0' && (quote != '\0' || strchr(" \t\n", *c) == NULL); c++) {
        if (quote == '\0' && (*c == '\'' || *c == '"')) {
            quote = *c;
        } else if (*c == quote) {
            quote = '\0';
        } else {
            c += *c == '\\' && quote != '\'' && c[1] != '\0';
            str_add_len(word, c, 1);
        }
    }
    *at = c;
    return quote == '\0' || err_set(err, ERR_INVALID, "a %c does not end", quote);
}

bool str_words(struct arena *arena, const char *text, const char ***ret, size_t *ret_n,
               struct err *err)
{
    const char **words = ARENA_ARRAY(arena, const char *, strlen(text) / 2 + 2);
    size_t n = 0;

    for (text += strspn(text, " \t\n"); *text != '\0'; text += strspn(text, " \t\n")) {
        struct str word = {.arena = arena};

        if (!take_word(&text, &word, err))
            return false;
        words[n++] = str_text(&word);
    }
    words[n] = NULL;
    *ret = words;
    *ret_n = n;
    return true;
}

const char *str_shell(struct arena *arena, const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=:,./@%";
    struct str out = {.arena = arena};

    if (text[0] != '\0' && text[strspn(text, plain)] == '\0')
        return text;
    str_add(&out, "'");
    for (; *text != '\0'; text++)
        str_add(&out, *text == '\'' ? "'\\''" : (char[]){*text, '\0'});
    str_add(&out, "'");
    return str_text(&out);
}
