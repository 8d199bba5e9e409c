"""Make a C file that holds the text files of a folder:  embed.py OUTPUT FOLDER FILE...

embed.h says what it defines. Only text: a file is one C string.
"""

import os
import sys

ESCAPES = {ord("\\"): "\\\\", ord('"'): '\\"', ord("?"): "\\?", ord("\n"): "\\n", ord("\t"): "\\t"}


def c_string(data):
    """One literal for each line of the text. Octal, because a hexadecimal escape would not end."""
    lines = data.splitlines(keepends=True) or [b""]
    return "\n".join(
        '     "' + "".join(ESCAPES.get(byte, chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")
                          for byte in line) + '"' for line in lines)


def main(output, folder, *files):
    entries = []
    for path in sorted(files):
        with open(path, "rb") as f:
            data = f.read()
        name = os.path.relpath(path, folder)
        if b"\0" in data or name.startswith(".."):
            sys.exit(f"{path}: not a text file below {folder}")
        entries.append(f'    {{"{name}",\n{c_string(data)}}},\n')
    with open(output, "w", encoding="ascii") as f:
        f.write('/* Made by src/cli/embed.py. */\n#include "cli/embed.h"\n\n'
                f"const struct embedded_file embedded_files[] = {{\n{''.join(entries)}}};\n"
                f"const size_t embedded_files_n = {len(entries)};\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
