/* Random names and passwords from the kernel's generator. */
#pragma once

#include "base/str.h"

/* `bytes` random bytes as lower-case hex. */
const char *random_hex(struct arena *arena, size_t bytes);

/* A password of `len` letters and digits (5.95 bits each; 32 gives 190 bits): no character that
 * needs quoting in a shell, a URL or a passfile. */
const char *random_password(struct arena *arena, size_t len);
