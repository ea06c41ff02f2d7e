#!/usr/bin/env python3
"""Writes tokenizer_nfc_table.h: what Unicode's Normalization Form C needs, from Python's unicodedata.

    ./tokenizer_nfc_table.py > tokenizer_nfc_table.h
"""
import textwrap
import unicodedata

HANGUL = range(0xAC00, 0xAC00 + 11172)


def rows(items):
    return textwrap.fill(" ".join(items), 98, initial_indent="    ", subsequent_indent="    ",
                         break_long_words=False, break_on_hyphens=False)


def main():
    classes = []  # [first, last, class]
    decompositions = []  # (code point, first, second or 0)
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        combining = unicodedata.combining(chr(code))
        if combining:
            if classes and classes[-1][1] == code - 1 and classes[-1][2] == combining:
                classes[-1][1] = code
            else:
                classes.append([code, code, combining])
        text = unicodedata.decomposition(chr(code))
        if text and not text.startswith("<") and code not in HANGUL:
            parts = [int(part, 16) for part in text.split()]
            assert len(parts) <= 2
            decompositions.append((code, parts[0], parts[1] if len(parts) == 2 else 0))
    # A pair composes when NFC says so: this leaves out the exclusions without their list.
    pairs = []
    for index, (code, first, second) in enumerate(decompositions):
        if second and unicodedata.normalize("NFC", chr(first) + chr(second)) == chr(code):
            pairs.append((first, second, index))
    pairs.sort()
    print("/* tokenizer_nfc_table.h - canonical composition of Unicode %s." % unicodedata.unidata_version)
    print(" *")
    print(" * Room:      runtime/model")
    print(" * Threads:   constant")
    print(" *")
    print(" * Made by tokenizer_nfc_table.py; do not edit.")
    print(" */")
    print("/* clang-format off */")
    print("#include <stdint.h>\n")
    print("/* Canonical combining classes that are not 0, by rising code point. */")
    print("static const struct {\n    uint32_t first;\n    uint16_t count;\n    uint8_t combining;\n} nfc_classes[] = {")
    print(rows(["{%#x,%d,%d}," % (a, b - a + 1, c) for a, b, c in classes]))
    print("};\n")
    print("/* Canonical decompositions of one step, by rising code point; second is 0 for single ones. */")
    print("static const struct {\n    uint32_t code, first, second;\n} nfc_decompositions[] = {")
    print(rows(["{%#x,%#x,%s}," % (a, b, "%#x" % c if c else "0") for a, b, c in decompositions]))
    print("};\n")
    print("/* Those that compose, as indices, by rising (first, second). */")
    print("static const uint16_t nfc_pairs[] = {")
    print(rows(["%d," % index for _, _, index in pairs]))
    print("};")
    print("/* clang-format on */")


if __name__ == "__main__":
    main()
