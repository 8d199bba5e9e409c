/* Reader for files in postgresql.conf syntax: the tokens of PostgreSQL's guc-file.l, written by
 * hand, so that a file means here exactly what it means to the server. */
#include <ctype.h>
#include <strings.h>

#include "pg/guc.h"

enum token {
    TOKEN_END, /* of the line or the file */
    TOKEN_NAME,
    TOKEN_QUALIFIED_NAME,
    TOKEN_WORD, /* unquoted value that is no name: on-disk, a/b, 1.5x */
    TOKEN_STRING,
    TOKEN_NUMBER,
    TOKEN_EQUALS,
    TOKEN_OPEN_STRING, /* no closing quote on the line */
    TOKEN_ERROR,
};

struct reader {
    struct arena *arena;
    const char *file;
    int line;
    const char *at;    /* next unread character */
    const char *start; /* last token */
    size_t len;
};

static bool is_letter(char c)
{
    return isalpha((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80;
}

static bool is_letter_or_digit(char c)
{
    return is_letter(c) || (c >= '0' && c <= '9');
}

static const char *skip_digits(const char *c)
{
    while (*c >= '0' && *c <= '9')
        c++;
    return c;
}

/* [eE][+-]?digits, or `c` when there is none */
static const char *skip_exponent(const char *c)
{
    const char *digits = c + 1;

    if (*c != 'e' && *c != 'E')
        return c;
    if (*digits == '+' || *digits == '-')
        digits++;
    return skip_digits(digits) == digits ? c : skip_digits(digits);
}

/* 100, -1, 0x1F, 64MB, .5, 1.5e-3; NULL when there is no number. */
static const char *skip_number(const char *c)
{
    const char *digits = c + (*c == '+' || *c == '-');
    const char *end = skip_digits(digits);

    if (end == digits && *end != '.')
        return NULL;
    if (*end == '.')
        return skip_exponent(skip_digits(end + 1));
    if (digits[0] == '0' && digits[1] == 'x' && isxdigit((unsigned char)digits[2])) {
        end = digits + 2;
        while (isxdigit((unsigned char)*end))
            end++;
    }
    while (isalpha((unsigned char)*end))
        end++;
    return end;
}

/* Behind the closing quote; NULL when the line ends before. */
static const char *skip_string(const char *c)
{
    for (c++; *c != '\0' && *c != '\n'; c++) {
        if (*c == '\\' && c[1] != '\0' && c[1] != '\n') {
            c++;
        } else if (*c == '\'') {
            if (c[1] != '\'')
                return c + 1;
            c++;
        }
    }
    return NULL;
}

static enum token take(struct reader *reader, enum token token, const char *end)
{
    reader->len = (size_t)(end - reader->start);
    reader->at = end;
    return token;
}

/* The longest of a name, a qualified name and an unquoted value. */
static enum token take_word(struct reader *reader)
{
    const char *name = reader->start;
    const char *qualified;
    const char *word;

    while (is_letter_or_digit(*name))
        name++;
    qualified = name;
    if (*name == '.' && is_letter(name[1])) {
        qualified = name + 1;
        while (is_letter_or_digit(*qualified))
            qualified++;
    }
    word = name;
    while (is_letter_or_digit(*word) || (*word != '\0' && strchr("-._:/", *word) != NULL))
        word++;
    if (word > qualified)
        return take(reader, TOKEN_WORD, word);
    return take(reader, qualified > name ? TOKEN_QUALIFIED_NAME : TOKEN_NAME, qualified);
}

static enum token next_token(struct reader *reader)
{
    const char *c = reader->at + strspn(reader->at, " \t\r");
    const char *end;

    if (*c == '#')
        c += strcspn(c, "\n");
    reader->start = c;
    if (*c == '\0' || *c == '\n')
        return take(reader, TOKEN_END, c);
    if (is_letter(*c))
        return take_word(reader);
    if (*c == '=')
        return take(reader, TOKEN_EQUALS, c + 1);
    if (*c == '\'') {
        end = skip_string(c);
        return end == NULL ? take(reader, TOKEN_OPEN_STRING, c + strcspn(c, "\n"))
                           : take(reader, TOKEN_STRING, end);
    }
    end = skip_number(c);
    return end == NULL ? take(reader, TOKEN_ERROR, c + 1) : take(reader, TOKEN_NUMBER, end);
}

/* What stands behind a backslash at *c; moves *c to its last character. */
static char unescape(const char **c)
{
    static const char letters[] = "bfnrt";
    static const char meanings[] = "\b\f\n\r\t";
    const char *found = strchr(letters, **c);
    int value = 0;
    int n = 0;

    if (found != NULL && **c != '\0')
        return meanings[found - letters];
    while (n < 3 && (*c)[n] >= '0' && (*c)[n] <= '7')
        value = value * 8 + ((*c)[n++] - '0');
    if (n == 0)
        return **c;
    *c += n - 1;
    return (char)value;
}

/* Strip the quotes, and undo '' and backslash escapes. */
static const char *unquote(struct arena *arena, const char *text, size_t len)
{
    const char *end = text + len - 1;
    char *value = arena_alloc(arena, len);
    char *out = value;

    for (const char *c = text + 1; c < end; c++) {
        if (*c == '\\') {
            c++;
            *out++ = unescape(&c);
            continue;
        }
        c += *c == '\'';
        *out++ = *c;
    }
    return value;
}

/* The offending text is not shown: it may be a part of a password. */
static bool fail(const struct reader *reader, struct err *err, const char *format, ...)
    PRINTF_LIKE(3, 4);

static bool fail(const struct reader *reader, struct err *err, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return err_set(err, ERR_INVALID, "%s:%d: %s", reader->file, reader->line, text);
}

static bool hint_quotes(struct err *err)
{
    return err_hint(err, "put a value with special characters into single quotes");
}

static bool read_value(struct reader *reader, const char *name, const char **ret, struct err *err)
{
    enum token token = next_token(reader);

    if (token == TOKEN_EQUALS)
        token = next_token(reader);
    switch (token) {
    case TOKEN_STRING:
        *ret = unquote(reader->arena, reader->start, reader->len);
        return true;
    case TOKEN_NAME:
    case TOKEN_WORD:
    case TOKEN_NUMBER:
        *ret = str_ndup(reader->arena, reader->start, reader->len);
        return true;
    case TOKEN_QUALIFIED_NAME: /* PostgreSQL does not take an unquoted a.b as a value */
    case TOKEN_EQUALS:
    case TOKEN_ERROR:
        fail(reader, err, "value of '%s' is not understood", name);
        return hint_quotes(err);
    case TOKEN_OPEN_STRING:
        return fail(reader, err, "value of '%s' has no closing quote", name);
    case TOKEN_END:
        break;
    }
    return fail(reader, err, "'%s' has no value", name);
}

static bool is_include(const char *name)
{
    return strcasecmp(name, "include") == 0 || strcasecmp(name, "include_if_exists") == 0 ||
           strcasecmp(name, "include_dir") == 0;
}

static bool read_line(struct reader *reader, struct guc_list *list, struct err *err)
{
    enum token token = next_token(reader);
    const char *value = NULL;
    const char *name;

    if (token == TOKEN_END)
        return true;
    if (token != TOKEN_NAME && token != TOKEN_QUALIFIED_NAME)
        return fail(reader, err, "expected 'name = value'");
    name = str_ndup(reader->arena, reader->start, reader->len);
    if (is_include(name)) {
        fail(reader, err, "'%s' is not supported", name);
        return err_hint(err, "put the settings of the included file here");
    }
    if (!read_value(reader, name, &value, err))
        return false;
    if (next_token(reader) != TOKEN_END) {
        fail(reader, err, "unexpected text behind the value of '%s'", name);
        return hint_quotes(err);
    }
    guc_list_add(reader->arena, list, name, value, reader->file, reader->line);
    return true;
}

bool guc_file_parse(struct arena *arena, const char *file, const char *text, struct guc_list *ret,
                    struct err *err)
{
    struct reader reader = {.arena = arena, .file = str_dup(arena, file), .at = text};
    struct guc_list list = {0};

    if (str_starts(text, "\xef\xbb\xbf")) /* an editor's byte order mark */
        reader.at += 3;
    for (reader.line = 1; *reader.at != '\0'; reader.line++) {
        if (!read_line(&reader, &list, err))
            return false;
        reader.at += *reader.at == '\n';
    }
    *ret = list;
    return true;
}
