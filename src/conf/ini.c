/* Reader and editor for pgduet.conf. Both look at one line at a time through scan_line(), so that
 * the editor can never disagree with the reader about what a line says. */
#include <ctype.h>
#include <strings.h>

#include "conf/ini.h"

enum line_kind { LINE_BLANK, LINE_COMMENT, LINE_SECTION, LINE_ENTRY, LINE_BAD };

struct line {
    enum line_kind kind;
    const char *section;
    const char *name;
    const char *key;
    const char *value;
    size_t value_start; /* what stands for the value in the line: [value_start, value_end) */
    size_t value_end;
    const char *why; /* of LINE_BAD */
};

static struct line bad(const char *why)
{
    return (struct line){.kind = LINE_BAD, .why = why};
}

static const char *skip_blanks(const char *at)
{
    while (*at == ' ' || *at == '\t')
        at++;
    return at;
}

static bool is_word_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '.' || c == '-' || c == '$';
}

static const char *skip_word(const char *at)
{
    while (is_word_char(*at))
        at++;
    return at;
}

static bool is_end(const char *at)
{
    at = skip_blanks(at);
    return *at == '\0' || *at == '#' || *at == ';';
}

/* `at` is behind the '['. */
static struct line scan_section(struct arena *arena, const char *at)
{
    const char *word = skip_blanks(at);
    const char *word_end = skip_word(word);
    const char *close = strchr(at, ']');

    if (close == NULL)
        return bad("']' is missing");
    if (word == word_end)
        return bad("a section needs a name");
    if (*word_end != ']' && skip_blanks(word_end) == word_end)
        return bad("the name of a section has only letters, digits, '_', '.' and '-'");
    if (!is_end(close + 1))
        return bad("unexpected text behind ']'");
    return (struct line){
        .kind = LINE_SECTION,
        .section = str_ndup(arena, word, (size_t)(word_end - word)),
        .name = str_trim(str_ndup(arena, word_end, (size_t)(close - word_end))),
    };
}

/* `at` is the opening quote. */
static struct line scan_quoted(struct arena *arena, const char *text, const char *at,
                               struct line line)
{
    char quote = *at;
    struct str value = {.arena = arena};

    line.value_start = (size_t)(at - text);
    for (at++; *at != '\0'; at++) {
        if (*at == quote && !(quote == '\'' && at[1] == quote))
            break;
        str_add_len(&value, at, 1);
        if (*at == quote)
            at++;
    }
    if (*at == '\0')
        return bad("the quote is not closed");
    at++;
    if (*skip_blanks(at) != '\0' && *skip_blanks(at) != '#')
        return bad("unexpected text behind the closing quote");
    line.value_end = (size_t)(at - text);
    line.value = str_text(&value);
    return line;
}

/* `at` is behind the '='. */
static struct line scan_plain(struct arena *arena, const char *text, const char *at,
                              struct line line)
{
    const char *start = skip_blanks(at);
    const char *end = start;

    for (const char *p = start; *p != '\0'; p++) {
        if (*p == '#' && p > at && (p[-1] == ' ' || p[-1] == '\t'))
            break;
        if (*p != ' ' && *p != '\t')
            end = p + 1;
    }
    if (start == end)
        start = end = at;
    line.value_start = (size_t)(start - text);
    line.value_end = (size_t)(end - text);
    line.value = str_ndup(arena, start, (size_t)(end - start));
    return line;
}

static struct line scan_entry(struct arena *arena, const char *text, const char *at)
{
    const char *key_end = skip_word(at);
    const char *equals = skip_blanks(key_end);
    struct line line = {.kind = LINE_ENTRY};

    if (key_end == at || *equals != '=')
        return bad("expected 'key = value' or '[section]'");
    line.key = str_ndup(arena, at, (size_t)(key_end - at));
    at = skip_blanks(equals + 1);
    if (*at == '\'' || *at == '"')
        return scan_quoted(arena, text, at, line);
    return scan_plain(arena, text, equals + 1, line);
}

/* `text` is one line without its end. */
static struct line scan_line(struct arena *arena, const char *text)
{
    const char *at = skip_blanks(text);

    if (str_starts(at, "\xef\xbb\xbf")) /* byte order mark of a Windows editor */
        at = skip_blanks(at + 3);
    if (*at == '\0')
        return (struct line){.kind = LINE_BLANK};
    if (*at == '#' || *at == ';')
        return (struct line){.kind = LINE_COMMENT};
    for (const char *p = at; *p != '\0'; p++)
        if (iscntrl((unsigned char)*p) && *p != '\t')
            return bad("control character in the line");
    if (*at == '[')
        return scan_section(arena, at + 1);
    return scan_entry(arena, text, at);
}

/* Cut the next line off `*cursor`: the line without its end, and how long it is with it.
 * NULL at the end of the text. */
static const char *next_line(struct arena *arena, const char **cursor, size_t *ret_raw_len)
{
    const char *start = *cursor;
    size_t len = strcspn(start, "\n");
    size_t raw_len = start[len] == '\n' ? len + 1 : len;

    if (raw_len == 0)
        return NULL;
    if (len > 0 && start[len - 1] == '\r')
        len--;
    *cursor += raw_len;
    *ret_raw_len = raw_len;
    return str_ndup(arena, start, len);
}

static size_t count_lines(const char *text)
{
    size_t n = 1;

    for (; *text != '\0'; text++)
        n += *text == '\n';
    return n;
}

bool ini_parse(struct arena *arena, const char *path, const char *text, struct ini *ret,
               struct err *err)
{
    struct ini ini = {.entries = ARENA_ARRAY(arena, struct ini_entry, count_lines(text))};
    const char *section = NULL;
    const char *name = NULL;
    const char *at;
    size_t raw_len;

    for (int number = 1; (at = next_line(arena, &text, &raw_len)) != NULL; number++) {
        struct line line = scan_line(arena, at);

        if (line.kind == LINE_BAD)
            return err_set(err, ERR_INVALID, "%s:%d: %s", path, number, line.why);
        if (line.kind == LINE_BLANK || line.kind == LINE_COMMENT)
            continue;
        if (line.kind == LINE_SECTION) {
            section = line.section;
            name = line.name;
            line.key = "";
            line.value = "";
        }
        if (section == NULL)
            return err_set(err, ERR_INVALID, "%s:%d: '%s' stands before the first [section]", path,
                           number, line.key);
        ini.entries[ini.n++] = (struct ini_entry){section, name, line.key, line.value, number};
    }
    *ret = ini;
    return true;
}

static bool needs_quotes(const char *value)
{
    size_t len = strlen(value);

    if (len == 0 || strchr("'\"# \t", value[0]) != NULL || strchr(" \t", value[len - 1]) != NULL)
        return true;
    for (const char *p = value; *p != '\0'; p++)
        if ((*p == '#' && p > value && (p[-1] == ' ' || p[-1] == '\t')) ||
            iscntrl((unsigned char)*p))
            return true;
    return false;
}

static const char *quote(struct arena *arena, const char *value)
{
    struct str out = {.arena = arena};

    if (!needs_quotes(value))
        return value;
    str_add(&out, "'");
    for (; *value != '\0'; value++)
        str_add(&out, *value == '\'' ? "''" : (char[]){*value, '\0'});
    str_add(&out, "'");
    return str_text(&out);
}

/* The new text grows in `out`; `end` is where a line of the section would be added: behind its
 * last line, but before a comment that stands directly on the next section's header. */
struct editor {
    struct str out;
    bool inside;
    bool found;
    bool done;
    size_t end;
};

/* Comments since `end` belong to this section: a blank line or the end of the text follows. */
static void keep_comments(struct editor *editor, size_t until)
{
    size_t at = until;

    while (at > editor->end && strchr("\r\n", editor->out.data[at - 1]) != NULL)
        at--;
    if (at > editor->end)
        editor->end = until;
}

static void copy_line(struct editor *editor, const struct line *line, const char *raw, size_t len)
{
    size_t before = editor->out.len;

    str_add_len(&editor->out, raw, len);
    if (!editor->inside)
        return;
    if (line->kind == LINE_BLANK)
        keep_comments(editor, before);
    else if (line->kind != LINE_COMMENT)
        editor->end = editor->out.len;
}

static void replace_value(struct editor *editor, const struct line *line, const char *raw,
                          size_t len, const char *value)
{
    bool was_empty = line->value_start == line->value_end;

    str_add_len(&editor->out, raw, line->value_start);
    if (was_empty)
        str_add(&editor->out, " ");
    str_add(&editor->out, value);
    str_add_len(&editor->out, raw + line->value_end, len - line->value_end);
    editor->end = editor->out.len;
    editor->done = true;
}

static const char *add_line(struct editor *editor, const char *header, const char *line,
                            const char *newline)
{
    struct str out = {.arena = editor->out.arena};
    const char *text = str_text(&editor->out);
    size_t end = editor->found ? editor->end : editor->out.len;

    str_add_len(&out, text, end);
    if (end > 0 && text[end - 1] != '\n')
        str_add(&out, newline);
    if (!editor->found)
        str_addf(&out, "%s%s%s", end > 0 ? newline : "", header, newline);
    str_addf(&out, "%s%s%s", line, newline, text + end);
    return str_text(&out);
}

const char *ini_set(struct arena *arena, const char *text, const char *section, const char *name,
                    const char *key, const char *value)
{
    const char *newline = strstr(text, "\r\n") != NULL ? "\r\n" : "\n";
    struct editor editor = {.out = {.arena = arena}};
    const char *start = text;
    const char *at;
    size_t len;

    if (name == NULL)
        name = "";
    for (; (at = next_line(arena, &text, &len)) != NULL; start = text) {
        struct line line = scan_line(arena, at);

        if (line.kind == LINE_SECTION) {
            /* A section that goes on further down gets its line where it was seen last. */
            editor.inside = strcmp(line.section, section) == 0 && strcmp(line.name, name) == 0;
            editor.found |= editor.inside;
        }
        if (!editor.inside || line.kind != LINE_ENTRY || strcasecmp(line.key, key) != 0)
            copy_line(&editor, &line, start, len);
        else if (value != NULL && !editor.done)
            replace_value(&editor, &line, start, len, quote(arena, value));
        else if (value != NULL)
            copy_line(&editor, &line, start, len);
    }
    if (value == NULL || editor.done)
        return str_text(&editor.out);
    if (editor.inside)
        keep_comments(&editor, editor.out.len);
    return add_line(&editor, str_fmt(arena, "[%s%s%s]", section, name[0] == '\0' ? "" : " ", name),
                    str_fmt(arena, "%s = %s", key, quote(arena, value)), newline);
}
