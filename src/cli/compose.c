/* The files of a Compose deployment. The folder in the sources is the only template: it has two
 * nodes, and what it says of the replica is repeated for each further one, with names and port
 * changed, or left out. */
#include "cli/compose.h"

#include "cli/embed.h"
#include "conf/sizing.h"
#include "sys/random.h"

enum { PASSWORD_LENGTH = 32, REPLICA_PORT = 5433 };

static const char *replace(struct arena *arena, const char *text, const char *old, const char *new)
{
    struct str out = {.arena = arena};
    const char *found;

    for (; (found = strstr(text, old)) != NULL; text = found + strlen(old)) {
        str_add_len(&out, text, (size_t)(found - text));
        str_add(&out, new);
    }
    str_add(&out, text);
    return str_text(&out);
}

/* Node 0 is the master, node 1 the replica, node 2 "postgres-replica-2". */
static const char *node_name(struct arena *arena, int node)
{
    if (node == 0)
        return "postgres-master";
    return node == 1 ? "postgres-replica" : str_fmt(arena, "postgres-replica-%d", node);
}

static const char *port_variable(struct arena *arena, int node)
{
    if (node == 0)
        return "POSTGRES_MASTER_PORT";
    return node == 1 ? "POSTGRES_REPLICA_PORT" : str_fmt(arena, "POSTGRES_REPLICA_%d_PORT", node);
}

/* Text about the replica as text about another one. */
static const char *about(struct arena *arena, const char *text, int node)
{
    if (node <= 1)
        return text;
    text = replace(arena, text, node_name(arena, 1), node_name(arena, node));
    text = replace(arena, text, "/replica/", str_fmt(arena, "/replica-%d/", node));
    text = replace(arena, text, port_variable(arena, 1), port_variable(arena, node));
    return replace(arena, text, str_fmt(arena, "%d", REPLICA_PORT),
                   str_fmt(arena, "%d", REPLICA_PORT - 1 + node));
}

/* One line of `owner`'s part. The line that mounts a sibling's data stands there once for each. */
static void add_line(struct str *out, const char *line, int owner, int nodes)
{
    int named = strstr(line, "/siblings/postgres-master") != NULL ? 0 : 1;

    if (strstr(line, "/siblings/") == NULL) {
        str_add(out, about(out->arena, line, owner));
        return;
    }
    for (int node = 0; node < nodes; node++)
        if (node != owner)
            str_add(out, replace(out->arena, line, node_name(out->arena, named),
                                 node_name(out->arena, node)));
}

/* The next line with its end; NULL when there is none. */
static const char *next_line(struct arena *arena, const char **text)
{
    size_t len = strcspn(*text, "\n");
    const char *line = *text;

    if (line[0] == '\0')
        return NULL;
    len += line[len] == '\n';
    *text += len;
    return str_ndup(arena, line, len);
}

/* A part that is about the replica alone, and so exists for each of them: its service, up to the
 * empty line behind it, or one line of a list. NULL: the text goes on with something else. */
static const char *take_replica_part(struct arena *arena, const char **text)
{
    static const char service[] = "  postgres-replica:\n";
    static const char *const lines[] = {"postgres-replica=", "postgres-replica-data:\n",
                                        "POSTGRES_REPLICA_PORT="};
    const char *begin = *text;
    const char *word = begin + strspn(begin, " ");

    if (str_starts(begin, service)) {
        const char *end = strstr(begin, "\n\n");

        *text = end != NULL ? end + 2 : begin + strlen(begin);
        return str_ndup(arena, begin, (size_t)(*text - begin));
    }
    for (size_t i = 0; i < COUNT_OF(lines); i++)
        if (str_starts(word, lines[i]))
            return next_line(arena, text);
    return NULL;
}

static const char *for_nodes(struct arena *arena, const char *text, int nodes)
{
    struct str out = {.arena = arena};
    const char *line;

    for (;;) {
        const char *part = take_replica_part(arena, &text);

        for (int node = 1; part != NULL && node < nodes; node++)
            for (const char *rest = part; (line = next_line(arena, &rest)) != NULL;)
                add_line(&out, line, node, nodes);
        if (part != NULL)
            continue;
        line = next_line(arena, &text);
        if (line == NULL)
            return str_text(&out);
        add_line(&out, line, 0, nodes);
    }
}

static const char *compose_yml(struct arena *arena, const char *text, int nodes)
{
    static const char title[] = "primary and its replica";

    text = for_nodes(arena, text, nodes);
    if (nodes == 1)
        return replace(arena, text, title, "server");
    return nodes == 2 ? text
                      : replace(arena, text, title,
                                str_fmt(arena, "primary and its %d replicas", nodes - 1));
}

static const char *set(struct arena *arena, const char *text, const char *name, const char *value)
{
    const char *start = str_fmt(arena, "\n%s=", name);
    const char *found = strstr(text, start);

    if (found == NULL)
        return str_fmt(arena, "%s%s=%s\n", text, name, value);
    return str_fmt(arena, "%.*s%s%s%s", (int)(found - text), text, start, value,
                   found + strlen(start) + strcspn(found + strlen(start), "\n"));
}

/* The container's limit is what the memory was asked for: neither more than the server is sized
 * for, nor less. */
static const char *set_memory(struct arena *arena, const char *text, const char *memory)
{
    struct sizing preset;
    struct err ignored = ERR_INIT;
    char limit[32];
    uint64_t kib;

    text = set(arena, text, "PGDUET_MEMORY", memory);
    if (!sizing_preset(memory, &kib, &preset) && !sizing_parse_memory(memory, &kib, &ignored))
        return text;
    sizing_format_kib(limit, kib);
    limit[strlen(limit) - 1] = '\0'; /* "2GB" as Docker writes it: "2G" */
    return set(arena, text, "POSTGRES_MEMORY_LIMIT", limit);
}

/* .env.example filled in; its first paragraph says how to do that by hand. */
static const char *env(struct arena *arena, const char *example,
                       const struct compose_wishes *wishes)
{
    static const char *const passwords[] = {"POSTGRES_ADMIN_PASSWORD",
                                            "POSTGRES_REPLICATION_PASSWORD", "POSTGRES_PASSWORD"};
    const char *rest = strstr(example, "\n\n");
    const char *text = str_fmt(arena,
                               "# Secrets and sizes. Keep this file out of version "
                               "control.%s",
                               rest != NULL ? rest : "\n");

    text = replace(arena, text, "\n#COMPOSE_PROJECT_NAME=", "\nCOMPOSE_PROJECT_NAME=");
    text = set(arena, text, "COMPOSE_PROJECT_NAME",
               str_fmt(arena, "postgres-replica-%s", random_hex(arena, 4)));
    for (size_t i = 0; i < COUNT_OF(passwords); i++)
        text = set(arena, text, passwords[i], random_password(arena, PASSWORD_LENGTH));
    if (wishes->memory != NULL)
        text = set_memory(arena, text, wishes->memory);
    for (int node = 0; wishes->port != 0 && node < wishes->nodes; node++)
        text =
            set(arena, text, port_variable(arena, node), str_fmt(arena, "%d", wishes->port + node));
    /* Docker refuses to start a container that may use more than there are */
    if (sysconf(_SC_NPROCESSORS_ONLN) == 1)
        text = set(arena, text, "POSTGRES_CPUS", "1");
    return text;
}

void compose_files(struct arena *arena, const struct compose_wishes *wishes,
                   const struct compose_file **ret, size_t *ret_n)
{
    struct compose_file *files = ARENA_ARRAY(arena, struct compose_file, embedded_files_n + 2);
    size_t n = 0;

    for (size_t i = 0; i < embedded_files_n; i++) {
        struct compose_file *file = &files[n++];

        *file = (struct compose_file){
            .name = embedded_files[i].name,
            .text = embedded_files[i].text,
            .mode = str_ends(embedded_files[i].name, ".sh") ? 0755 : 0644,
        };
        if (str_equal(file->name, "docker-compose.yml"))
            file->text = compose_yml(arena, file->text, wishes->nodes);
        if (!str_equal(file->name, ".env.example"))
            continue;
        file->text = for_nodes(arena, file->text, wishes->nodes);
        files[n++] = (struct compose_file){
            .name = ".env", .text = env(arena, file->text, wishes), .mode = 0600};
    }
    /* empty: without it, git would not keep the directory */
    files[n++] = (struct compose_file){.name = "certs/.gitkeep", .text = "", .mode = 0644};
    *ret = files;
    *ret_n = n;
}
