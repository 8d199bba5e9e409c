/* Settings that come beside a vocabulary: PGDUET_KEY, and flags as PostgreSQL's own program takes.
 */
#include <ctype.h>

#include "conf/contract_reader.h"
#include "conf/settings.h"

/* ---- PGDUET_KEY ---- */

static const char *change_case(struct arena *arena, const char *text, int (*change)(int))
{
    char *copy = str_dup(arena, text);

    for (char *p = copy; *p != '\0'; p++)
        *p = (char)change((unsigned char)*p);
    return copy;
}

static bool refuse_unknown(struct reader *r, const struct var *var, const char *key,
                           struct err *err)
{
    int near = settings_find_near("cluster", key);
    size_t n;

    if (near < 0)
        near = settings_find_near("postgres", key);
    err_set(err, ERR_INVALID, "%s: there is no setting '%s'", var->name, key);
    if (near >= 0)
        return err_hint(err, "did you mean PGDUET_%s?",
                        change_case(r->arena, conf_settings(&n)[near].key, toupper));
    return err_hint(err, "PostgreSQL's own settings are given as arguments: -c %s=...", key);
}

/* Settings that the image decides, and what to do instead. */
static const char *decided_otherwise(const char *key)
{
    static const struct {
        const char *key, *instead;
    } decided[] = {
        {"this_node", "PGDUET_NODE says which node this container is"},
        {"store", "mount a volume at its place in the image"},
        {"local_auth", "connections through the socket log in as peer"},
        {"init_scripts", "mount the scripts at " CONTRACT_INIT_SCRIPTS},
        {"user", "set POSTGRES_USER"},
    };

    for (size_t i = 0; i < COUNT_OF(decided); i++)
        if (strcmp(decided[i].key, key) == 0)
            return decided[i].instead;
    return NULL;
}

static bool take_own_setting(struct reader *r, const struct var *var, struct err *err)
{
    static const char *const others[] = {"PGDUET_DIR",   "PGDUET_CONTAINER", "PGDUET_NODE",
                                         "PGDUET_NODES", "PGDUET_IMAGE",     "PGDUET_SOURCE"};
    const char *key = change_case(r->arena, var->name + strlen("PGDUET_"), tolower);
    const char *section = settings_find("cluster", key) >= 0 ? "cluster" : "postgres";
    const char *instead = decided_otherwise(key);

    for (size_t i = 0; i < COUNT_OF(others); i++)
        if (strcmp(var->name, others[i]) == 0)
            return true;
    if (settings_find(section, key) < 0)
        return refuse_unknown(r, var, key, err);
    if (instead != NULL) {
        err_set(err, ERR_INVALID, "%s: the image decides it", var->name);
        return err_hint(err, "%s", instead);
    }
    if (strcmp(key, "hba_file") == 0)
        r->out.hba = NULL;
    return reader_check_characters(var, err) && reader_put(r, section, key, var, err);
}

bool contract_take_settings(struct reader *r, struct err *err)
{
    for (size_t i = 0; i < r->n_vars; i++)
        if (str_starts(r->vars[i].name, "PGDUET_") && !take_own_setting(r, &r->vars[i], err))
            return false;
    return true;
}

/* ---- the server's flags ---- */

static bool is_setting_name(const char *name)
{
    bool start = true;

    for (; *name != '\0'; name++) {
        bool letter = isalpha((unsigned char)*name) || *name == '_';

        if (!letter && (start || (!isdigit((unsigned char)*name) && strchr("$.", *name) == NULL)))
            return false;
        start = *name == '.';
    }
    return !start;
}

/* Settings of PostgreSQL's that are ours under another name; the second one is set, too. */
static bool take_translated(struct reader *r, const char *name, const struct var *flag, bool *found,
                            struct err *err)
{
    static const struct {
        const char *name, *keys[2];
    } translated[] = {
        {"listen_addresses", {"listen", NULL}},
        {"max_connections", {"max_connections", NULL}},
        {"hba_file", {"hba_file", NULL}},
        {"config_file", {"primary_file", "replica_file"}},
    };

    *found = false;
    for (size_t i = 0; i < COUNT_OF(translated); i++) {
        if (strcmp(translated[i].name, name) != 0)
            continue;
        *found = true;
        if (strcmp(name, "hba_file") == 0)
            r->out.hba = NULL;
        for (size_t j = 0; j < 2 && translated[i].keys[j] != NULL; j++)
            if (!reader_put(r, "postgres", translated[i].keys[j], flag, err))
                return false;
    }
    return true;
}

static bool refuse_port(struct err *err)
{
    err_set(err, ERR_INVALID, "flag -p: the port is not chosen by a flag");
    return err_hint(err, "publish it under another number: docker run -p 5433:" CONTRACT_PORT);
}

/* `text`: name=value */
static bool take_assignment(struct reader *r, const char *text, struct err *err)
{
    const char *equals = strchr(text, '=');
    struct var flag;
    char *name;
    bool found;

    if (equals == NULL)
        return err_set(err, ERR_INVALID, "flag '%s': a setting is given as name=value", text);
    name = str_ndup(r->arena, text, (size_t)(equals - text));
    for (char *p = name; *p != '\0'; p++)
        *p = *p == '-' ? '_' : (char)tolower((unsigned char)*p);
    flag = (struct var){str_fmt(r->arena, "flag -c %s", name), equals + 1};
    if (!reader_check_characters(&flag, err))
        return false;
    if (strcmp(name, "port") == 0)
        return refuse_port(err);
    if (strcmp(name, "data_directory") == 0)
        return err_set(err, ERR_INVALID, "flag -c data_directory: set PGDATA instead");
    if (!take_translated(r, name, &flag, &found, err))
        return false;
    if (found)
        return true;
    if (!is_setting_name(name) || settings_find_near("postgres", name) >= 0)
        return err_set(err, ERR_INVALID, "%s: PostgreSQL has no such setting", flag.name);
    reader_set(r, "postgres", name, flag.value);
    return true;
}

/* Short forms of settings; NULL: none. */
static const char *short_form(char letter)
{
    return letter == 'B' ? "shared_buffers" : letter == 'N' ? "max_connections" : NULL;
}

/* The flag at words[0], and its value, which may be the next word. */
static bool take_flag(struct reader *r, const char *const *words, size_t *ret_n, struct err *err)
{
    const char *word = words[0];
    const char *value = word + 2;

    *ret_n = 1;
    if (str_starts(word, "--") && word[2] != '\0')
        return take_assignment(r, word + 2, err);
    if (str_starts(word, "-p"))
        return refuse_port(err);
    if (word[0] != '-' || (word[1] != 'c' && short_form(word[1]) == NULL)) {
        err_set(err, ERR_INVALID, "flag '%.*s' is not understood here", (int)strcspn(word, "="),
                word);
        return err_hint(err, "settings of PostgreSQL are given as: -c name=value");
    }
    if (*value == '\0') {
        value = words[1];
        *ret_n = 2;
    }
    if (value == NULL)
        return err_set(err, ERR_INVALID, "flag '%s' has no value", word);
    if (word[1] != 'c')
        value = str_fmt(r->arena, "%s=%s", short_form(word[1]), value);
    return take_assignment(r, value, err);
}

static bool take_flags(struct reader *r, const char *const *words, struct err *err)
{
    size_t n;

    for (; *words != NULL; words += n)
        if (!take_flag(r, words, &n, err))
            return false;
    return true;
}

bool contract_take_extra_flags(struct reader *r, struct err *err)
{
    const char **words;
    size_t n;

    if (r->extra_flags == NULL)
        return true;
    if (!str_words(r->arena, r->extra_flags, &words, &n, err) || !take_flags(r, words, err))
        return err_wrap(err, "POSTGRESQL_EXTRA_FLAGS");
    return true;
}

bool contract_take_arguments(struct reader *r, struct err *err)
{
    static const char *const none[] = {NULL};

    return take_flags(r, r->in->flags == NULL ? none : (const char *const *)r->in->flags, err);
}
