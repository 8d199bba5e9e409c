/* Reader for .env. It follows Docker Compose, so that one file serves both: "$" is special outside
 * single quotes, a quoted value may span lines, later entries win. Two differences: references are
 * looked up in the file alone, because the agent and the command line must read the same passwords
 * whatever their environment is; and errors show names, never values. */
#include <ctype.h>

#include "conf/env.h"

struct reader {
    struct arena *arena;
    const char *path;
    const char *at;
    int line;
    const char *name; /* of the entry being read */
    struct env env;
};

static bool is_name_start(char c)
{
    return isalpha((unsigned char)c) || c == '_';
}

static size_t name_len(const char *at)
{
    size_t len = 0;

    if (!is_name_start(*at))
        return 0;
    while (isalnum((unsigned char)at[len]) || at[len] == '_')
        len++;
    return len;
}

static const char *skip_blanks(const char *at)
{
    while (*at == ' ' || *at == '\t' || (*at == '\r' && at[1] == '\n'))
        at++;
    return at;
}

static const char *known(const struct reader *reader, const char *name)
{
    const char *value = env_get(&reader->env, name);

    return value == NULL ? "" : value;
}

/* "${NAME}", "${NAME-default}", "${NAME:-default}"; at the "${". */
static bool read_braces(struct reader *reader, struct str *out, struct err *err)
{
    const char *at = reader->at + 2;
    size_t len = name_len(at);
    const char *name = str_ndup(reader->arena, at, len);
    const char *fallback;
    size_t fallback_len;
    bool set = env_get(&reader->env, name) != NULL;

    at += len;
    if (*at == ':' && at[1] == '-') {
        set = set && known(reader, name)[0] != '\0';
        at++;
    }
    fallback = *at == '-' ? at + 1 : at;
    fallback_len = strcspn(fallback, "}\n");
    if (len == 0 || fallback[fallback_len] != '}' || (fallback == at && fallback_len > 0)) {
        err_set(err, ERR_INVALID, "%s:%d: cannot read the ${...} in %s", reader->path, reader->line,
                reader->name);
        return err_hint(err, "put the value in single quotes if the dollar sign is part of it");
    }
    if (set)
        str_add(out, known(reader, name));
    else
        str_add_len(out, fallback, fallback_len);
    reader->at = fallback + fallback_len + 1;
    return true;
}

/* At a '$'. */
static bool read_dollar(struct reader *reader, struct str *out, struct err *err)
{
    size_t len = name_len(reader->at + 1);

    if (reader->at[1] == '{')
        return read_braces(reader, out, err);
    if (len > 0) {
        str_add(out, known(reader, str_ndup(reader->arena, reader->at + 1, len)));
        reader->at += 1 + len;
        return true;
    }
    str_add(out, "$");
    reader->at += reader->at[1] == '$' ? 2 : 1;
    return true;
}

/* At a backslash between double quotes. */
static void read_escape(struct reader *reader, struct str *out)
{
    static const char letters[] = "nrt\"\\$";
    static const char meanings[] = "\n\r\t\"\\$";
    const char *letter = strchr(letters, reader->at[1]);

    if (reader->at[1] == '\0' || letter == NULL) {
        str_add(out, "\\");
        reader->at++;
        return;
    }
    str_add_len(out, &meanings[letter - letters], 1);
    reader->at += 2;
}

/* At the opening quote. */
static bool read_quoted(struct reader *reader, struct str *out, struct err *err)
{
    char quote = *reader->at++;
    int first_line = reader->line;

    while (*reader->at != quote) {
        if (*reader->at == '\0')
            return err_set(err, ERR_INVALID, "%s:%d: the quote of %s is not closed", reader->path,
                           first_line, reader->name);
        if (quote == '"' && *reader->at == '$') {
            if (!read_dollar(reader, out, err))
                return false;
            continue;
        }
        if (quote == '"' && *reader->at == '\\') {
            read_escape(reader, out);
            continue;
        }
        reader->line += *reader->at == '\n';
        str_add_len(out, reader->at++, 1);
    }
    reader->at = skip_blanks(reader->at + 1);
    if (strchr("\n#", *reader->at) == NULL)
        return err_set(err, ERR_INVALID, "%s:%d: unexpected text behind the closing quote of %s",
                       reader->path, reader->line, reader->name);
    return true;
}

static bool is_comment(const char *at)
{
    return *at == '#' && (at[-1] == ' ' || at[-1] == '\t');
}

static bool read_plain(struct reader *reader, struct str *out, struct err *err)
{
    size_t end = 0;

    while (*reader->at != '\0' && *reader->at != '\n' && !is_comment(reader->at)) {
        bool blank = isspace((unsigned char)*reader->at);

        if (*reader->at != '$')
            str_add_len(out, reader->at++, 1);
        else if (!read_dollar(reader, out, err))
            return false;
        if (!blank)
            end = out->len;
    }
    if (out->data != NULL)
        out->data[end] = '\0';
    return true;
}

/* One entry, up to the end of its value. */
static bool read_entry(struct reader *reader, struct err *err)
{
    struct str value = {.arena = reader->arena};
    const char *at = reader->at;
    size_t len;
    bool ok;

    if (str_starts(at, "export") && (at[6] == ' ' || at[6] == '\t'))
        at = skip_blanks(at + 6);
    len = name_len(at);
    reader->name = str_ndup(reader->arena, at, len);
    at = skip_blanks(at + len);
    if (len == 0 || *at != '=')
        return err_set(err, ERR_INVALID, "%s:%d: expected NAME=value", reader->path, reader->line);
    reader->at = skip_blanks(at + 1);
    if (*reader->at == '\'' || *reader->at == '"')
        ok = read_quoted(reader, &value, err);
    else
        ok = read_plain(reader, &value, err);
    if (!ok)
        return false;
    reader->env.entries[reader->env.n++] = (struct env_entry){reader->name, str_text(&value)};
    return true;
}

static size_t count_char(const char *text, char c)
{
    size_t n = 0;

    for (; *text != '\0'; text++)
        n += *text == c;
    return n;
}

bool env_parse(struct arena *arena, const char *path, const char *text, struct env *ret,
               struct err *err)
{
    struct reader reader = {.arena = arena, .path = path, .at = text, .line = 1};

    reader.env.entries = ARENA_ARRAY(arena, struct env_entry, count_char(text, '=') + 1);
    if (str_starts(text, "\xef\xbb\xbf"))
        reader.at += 3;
    for (;;) {
        reader.at = skip_blanks(reader.at);
        if (*reader.at == '#')
            reader.at += strcspn(reader.at, "\n");
        if (*reader.at == '\0')
            break;
        if (*reader.at == '\n') {
            reader.at++;
            reader.line++;
            continue;
        }
        if (!read_entry(&reader, err))
            return false;
    }
    *ret = reader.env;
    return true;
}

const char *env_get(const struct env *env, const char *name)
{
    for (size_t i = env->n; i > 0; i--)
        if (strcmp(env->entries[i - 1].name, name) == 0)
            return env->entries[i - 1].value;
    return NULL;
}
