/* Random names and passwords. getentropy(3) blocks until the kernel's generator is seeded and does
 * not fail after that; should it ever, going on with a guessable password is worse than to abort.
 */
#include "sys/random.h"

static unsigned char random_byte(void)
{
    unsigned char byte;

    if (getentropy(&byte, sizeof(byte)) < 0) {
        fputs("pgduet: no random bytes from the kernel\n", stderr);
        abort();
    }
    return byte;
}

const char *random_hex(struct arena *arena, size_t bytes)
{
    static const char digits[] = "0123456789abcdef";
    char *text = arena_alloc(arena, 2 * bytes + 1);

    for (size_t i = 0; i < bytes; i++) {
        unsigned char byte = random_byte();

        text[2 * i] = digits[byte >> 4];
        text[2 * i + 1] = digits[byte & 15];
    }
    return text;
}

const char *random_password(struct arena *arena, size_t len)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const size_t n = sizeof(letters) - 1;
    char *text = arena_alloc(arena, len + 1);
    size_t done = 0;

    while (done < len) {
        unsigned char byte = random_byte();

        /* Bytes beyond the last whole multiple would make the first letters likelier. */
        if (byte < 256 / n * n)
            text[done++] = letters[byte % n];
    }
    return text;
}
