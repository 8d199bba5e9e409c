/* Names of users and schemas: nearly everything is allowed, since every name is quoted. */
#include "pg/user_name.h"

#define NAME_MAX_BYTES 63

/* Length of the UTF-8 character at `text`, 0 when it is none (also overlong forms, surrogates). */
static size_t utf8_len(const unsigned char *text)
{
    unsigned char c = text[0];
    unsigned char low = 0x80;
    unsigned char high = 0xBF;
    size_t len;

    if (c < 0x80)
        return 1;
    if (c < 0xC2 || c > 0xF4)
        return 0;
    len = c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    if (c == 0xE0)
        low = 0xA0;
    if (c == 0xED)
        high = 0x9F;
    if (c == 0xF0)
        low = 0x90;
    if (c == 0xF4)
        high = 0x8F;
    if (text[1] < low || text[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++) {
        if ((text[i] & 0xC0) != 0x80)
            return 0;
    }
    return len;
}

static bool is_clean_utf8(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;

    while (*c != '\0') {
        size_t len = utf8_len(c);

        if (len == 0 || *c < 0x20 || *c == 0x7F)
            return false;
        c += len;
    }
    return true;
}

/* `what`: "user" or "schema". PostgreSQL would cut a longer name, and so make another one. */
static bool check_name(const char *what, const char *name, struct err *err)
{
    if (name == NULL || name[0] == '\0')
        return err_set(err, ERR_INVALID, "the name of a %s cannot be empty", what);
    if (!is_clean_utf8(name))
        return err_set(err, ERR_INVALID,
                       "the name of a %s must be UTF-8 text without control characters", what);
    if (strlen(name) > NAME_MAX_BYTES)
        return err_set(err, ERR_INVALID, "%s '%s' is too long: %zu bytes, at most %d", what, name,
                       strlen(name), NAME_MAX_BYTES);
    if (str_starts(name, "pg_"))
        return err_set(err, ERR_INVALID, "%s '%s': names with pg_ are PostgreSQL's own", what,
                       name);
    if (str_starts(name, "pgduet_"))
        return err_set(err, ERR_INVALID, "%s '%s': names with pgduet_ are pgduet's own", what,
                       name);
    return true;
}

bool user_check_name(const char *name, const char *superuser, struct err *err)
{
    if (!check_name("user", name, err))
        return false;
    if (str_equal(name, "public") || str_equal(name, "none"))
        return err_set(err, ERR_INVALID, "user '%s': the name is reserved by PostgreSQL", name);
    if (str_equal(name, superuser)) {
        err_set(err, ERR_INVALID, "'%s' is the cluster's superuser, which pgduet itself uses",
                name);
        return err_hint(err, "give applications users of their own");
    }
    return true;
}

bool user_check_schema(const char *name, struct err *err)
{
    return check_name("schema", name, err);
}
