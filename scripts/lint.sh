#!/bin/bash
# Check what the compiler does not: format, direction of includes, headers that stand alone, banned
# functions, length of functions, shell scripts, clang-tidy.
#
#   scripts/lint.sh
#
# The last line says what failed. With CI=true a missing tool is a failure, otherwise it is named.
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/deps.sh
. "$ROOT/scripts/deps.sh"

BUILD=build-lint
FUNCTION_LINES=70
# A file includes from its own room and from those left of it.
ROOMS=(base sys conf store pg decide tool agent endpoint cli)
FLAGS=(-std=gnu17 -D_GNU_SOURCE '-DPGDUET_VERSION="lint"' -Isrc -Wall -Wextra -Werror)
FAILED=()
MISSING=()

# check NAME FUNCTION: a check prints what is wrong; silence is success.
check() {
    local output

    if output=$("$2" 2>&1) && [ -z "$output" ]; then
        printf '%-28s ok\n' "$1"
        return
    fi
    printf '%-28s FAILED\n%s\n' "$1" "$output"
    FAILED+=("$1")
}

missing() {
    printf '%-28s no %s on this machine\n' "$1" "$2"
    MISSING+=("$1")
}

# Version 14 exactly: others format differently.
tool_14() {
    if command -v "$1-14"; then
        return
    fi
    if command -v "$1" >/dev/null && "$1" --version | grep -q 'version 14\.'; then
        command -v "$1"
    fi
}

c_files() {
    find src tests -name '*.[ch]' | sort
}

room_of() {
    local path=${1#src/}

    echo "${path%%/*}"
}

rank_of() {
    local i

    for i in "${!ROOMS[@]}"; do
        if [ "${ROOMS[$i]}" = "$1" ]; then
            echo "$i"
            return
        fi
    done
    echo -1
}

check_format() {
    local file

    for file in "${FILES[@]}"; do
        "$CLANG_FORMAT" --dry-run -Werror "$file" 2>/dev/null || echo "$file: run $CLANG_FORMAT -i"
    done
}

# main.c stands above all rooms. decide is pure and knows base only. The guard knows nobody, and
# its protocol header, which includes nothing, is for the agent and those after it.
may_include() {
    local from=$1 to=$2

    case $from in
    guard) [ "$to" = guard ] ;;
    decide) [ "$to" = base ] || [ "$to" = decide ] ;;
    main.c) true ;;
    *)
        if [ "$to" = guard ]; then
            [ "$(rank_of "$from")" -ge "$(rank_of agent)" ]
        else
            [ "$(rank_of "$to")" -ge 0 ] && [ "$(rank_of "$to")" -le "$(rank_of "$from")" ]
        fi
        ;;
    esac
}

check_rooms() {
    local file included from

    while IFS=: read -r file included; do
        included=${included#*\"}
        included=${included%%\"*}
        from=$(room_of "$file")
        if [ "$from" != main.c ] && [ "$from" != guard ] && [ "$(rank_of "$from")" -lt 0 ]; then
            echo "$file: '$from' is not a room of the house"
        elif [[ $included != */* ]]; then
            echo "$file: \"$included\" must be written with its room"
        elif ! may_include "$from" "${included%%/*}"; then
            echo "$file: $from may not include \"$included\""
        fi
    done < <(grep -E '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' -r src --include='*.[ch]' || true)
}

check_headers() {
    local header cflags

    read -ra cflags < <(pkg-config --cflags jansson libpq)
    for header in $(find src -name '*.h' | sort); do
        printf '#include "%s"\n#include "%s"\n' "${header#src/}" "${header#src/}" |
            gcc "${FLAGS[@]}" "${cflags[@]}" -fsyntax-only -x c - || echo "$header: not self-contained"
        grep -q '^#pragma once$' "$header" || echo "$header: no #pragma once"
    done
}

# One list for all: the one that base.h gives to the compiler. The guard does not include base.h.
banned_functions() {
    sed -nE 's/^#pragma GCC poison //p' src/base/base.h | tr ' ' '\n' | grep .
}

check_banned() {
    local pattern file

    pattern="(^|[^a-zA-Z0-9_])($(banned_functions | paste -sd '|')|strtok_r)[[:space:]]*\\("
    for file in $(find src -name '*.[ch]' | sort); do
        # Without comments.
        gcc -fpreprocessed -dD -E -P "$file" 2>/dev/null | grep -E "$pattern" |
            sed "s|^|$file: banned function: |" || true
    done
}

check_length() {
    ctags --languages=C --kinds-C=f --fields=+ne -x --_xformat='%{input} %{line} %{end} %{name}' \
        "${FILES[@]}" |
        awk -v most="$FUNCTION_LINES" '$3 - $2 + 1 > most {
            printf "%s:%d: %s has %d lines, at most %d\n", $1, $2, $4, $3 - $2 + 1, most
        }'
}

check_shell() {
    find scripts .ci bench docker -type f \( -name '*.sh' -o -path '.ci/*' \) -exec shellcheck -x {} +
    (cd postgres-replica && shellcheck -x scripts/*.sh)
}

# What clang-tidy prints about a file without findings is noise about suppressed warnings.
# lint_err.h cannot stand before the definitions of what it redefines. __NO_CTYPE: the macros of
# ctype.h would count as the nesting of our functions.
check_tidy() {
    local output

    if ! output=$(meson setup "$BUILD" 2>&1); then
        echo "$output"
        return 1
    fi
    # shellcheck disable=SC2016 # the inner shell expands them
    find src -name '*.c' -print0 | sort -z | CLANG_TIDY=$CLANG_TIDY BUILD=$BUILD HERE=$PWD \
        xargs -0 -n 1 -P 2 bash -c '
            extra=(--extra-arg=-Wno-unknown-warning-option --extra-arg=-D__NO_CTYPE)
            case $0 in
            src/base/err.c | src/guard/*) ;;
            *) extra+=("--extra-arg=-include$HERE/scripts/lint_err.h") ;;
            esac
            output=$("$CLANG_TIDY" -p "$BUILD" --quiet "${extra[@]}" "$0" 2>&1) ||
                grep -v "warnings\? generated" <<<"$output"'
}

conclude() {
    if is_ci && [ ${#MISSING[@]} -gt 0 ]; then
        FAILED+=("${MISSING[@]}")
    fi
    if [ ${#FAILED[@]} -gt 0 ]; then
        printf 'lint: FAILED:'
        printf ' %s;' "${FAILED[@]}"
        echo
        exit 1
    fi
    if [ ${#MISSING[@]} -gt 0 ]; then
        printf 'lint: ok, but not checked:'
        printf ' %s;' "${MISSING[@]}"
        echo
        return
    fi
    echo 'lint: ok'
}

is_ci() {
    [ "${CI:-}" = true ]
}

main() {
    cd "$ROOT"
    deps_lint
    mapfile -t FILES < <(c_files)
    CLANG_FORMAT=$(tool_14 clang-format)
    CLANG_TIDY=$(tool_14 clang-tidy)

    check 'include direction' check_rooms
    check 'self-contained headers' check_headers
    check 'banned functions' check_banned
    if [ -n "$CLANG_FORMAT" ]; then
        check 'format' check_format
    else
        missing 'format' clang-format-14
    fi
    if ctags --version 2>/dev/null | grep -q Universal; then
        check 'function length' check_length
    else
        missing 'function length' universal-ctags
    fi
    if command -v shellcheck >/dev/null; then
        check 'shell scripts' check_shell
    else
        missing 'shell scripts' shellcheck
    fi
    if [ -n "$CLANG_TIDY" ]; then
        check 'clang-tidy' check_tidy
    else
        missing 'clang-tidy' clang-tidy-14
    fi
    conclude
}

main "$@"
