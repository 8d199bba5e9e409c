/* What this machine, or the container we are in, really has. */
#pragma once

#include "base/str.h"

struct machine {
    uint64_t memory_kib;
    int cpus;
    const char *memory_source; /* "MemTotal", or the cgroup file that limits it */
};

/* The smallest of MemTotal and every limit from our own cgroup up to the root: v1
 * memory.limit_in_bytes, v2 memory.max and memory.high; CPUs from affinity and cpu.max or
 * cfs_quota, rounded up. Paths through <root>/proc/self/cgroup and mountinfo: a mounted but
 * empty v2 hierarchy beside v1 controllers ("hybrid") is common. `root` is "" or a fixture. */
MUST_CHECK bool machine_read(struct arena *arena, const char *root, struct machine *ret,
                             struct err *err);

/* Free and total KiB of the filesystem of `path` (or its nearest existing parent). */
MUST_CHECK bool machine_disk(const char *path, uint64_t *ret_free_kib, uint64_t *ret_total_kib,
                             struct err *err);
