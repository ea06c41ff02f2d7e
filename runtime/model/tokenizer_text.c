/* UTF-8, white space and the byte-level alphabet. */
#include "runtime/model/tokenizer_int.h"

#include <string.h>

enum spw_tok_utf8 spw_tok_utf8_next(const uint8_t *text, size_t bytes, uint32_t *out_code,
                                    uint32_t *out_bytes)
{
    assert(bytes > 0);
    uint8_t first = text[0];
    *out_bytes = 1;
    *out_code = first;
    if (first < 0x80)
        return SPW_TOK_UTF8_VALID;
    if (first < 0xc2 || first > 0xf4)
        return SPW_TOK_UTF8_BAD;
    uint32_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    /* the second byte's range keeps out overlong forms, surrogates and what is past U+10FFFF */
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    uint32_t code = first & (0x7fu >> length);
    for (uint32_t i = 1; i < length; i++) {
        *out_bytes = i;
        if (i >= bytes)
            return SPW_TOK_UTF8_CUT;
        if (text[i] < low || text[i] > high)
            return SPW_TOK_UTF8_BAD;
        low = 0x80;
        high = 0xbf;
        code = code << 6 | (text[i] & 0x3fu);
    }
    *out_bytes = length;
    *out_code = code;
    return SPW_TOK_UTF8_VALID;
}

uint32_t spw_tok_utf8_put(uint32_t code, uint8_t *out)
{
    assert(code < 0x110000);
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (uint8_t)(0xc0 | code >> 6);
        out[1] = (uint8_t)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (uint8_t)(0xe0 | code >> 12);
        out[1] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | code >> 18);
    out[1] = (uint8_t)(0x80 | (code >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (code & 0x3f));
    return 4;
}

size_t spw_tok_utf8_valid(const uint8_t *text, size_t bytes)
{
    size_t at = 0;
    while (at < bytes) {
        uint64_t eight;
        if (bytes - at >= sizeof(eight)) {
            memcpy(&eight, text + at, sizeof(eight));
            if (!(eight & 0x8080808080808080u)) {
                at += sizeof(eight);
                continue;
            }
        }
        uint32_t code, length;
        if (spw_tok_utf8_next(text + at, bytes - at, &code, &length) != SPW_TOK_UTF8_VALID)
            break;
        at += length;
    }
    return at;
}

void spw_tok_utf8_mend(const uint8_t *text, size_t bytes, struct spw_buffer *out_text)
{
    while (bytes > 0) {
        size_t valid = spw_tok_utf8_valid(text, bytes);
        spw_buffer_add(out_text, text, valid);
        text += valid;
        bytes -= valid;
        if (bytes > 0) {
            uint32_t code, length;
            spw_tok_utf8_next(text, bytes, &code, &length);
            spw_buffer_add(out_text, "\xef\xbf\xbd", 3);
            text += length;
            bytes -= length;
        }
    }
}

bool spw_tok_is_space(uint32_t code)
{
    return (code >= 9 && code <= 13) || code == ' ' || code == 0x85 || code == 0xa0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
           code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

/* Printable bytes of Latin-1 stand for themselves; the 68 others follow from U+0100 on. */
int spw_tok_alphabet_byte(uint32_t code)
{
    if ((code >= 0x21 && code <= 0x7e) || (code >= 0xa1 && code <= 0xac) ||
        (code >= 0xae && code <= 0xff))
        return (int)code;
    if (code < 0x100 || code >= 0x144)
        return -1;
    code -= 0x100;
    if (code <= 0x20)
        return (int)code; /* 0x00-0x20 */
    if (code < 0x43)
        return (int)(code - 0x21 + 0x7f); /* 0x7f-0xa0 */
    return 0xad;
}

bool spw_tok_alphabet_decode(const char *content, size_t bytes, struct spw_buffer *out_bytes)
{
    size_t before = out_bytes->bytes;
    const uint8_t *text = (const uint8_t *)content;
    for (size_t at = 0; at < bytes;) {
        uint32_t code, length;
        enum spw_tok_utf8 kind = spw_tok_utf8_next(text + at, bytes - at, &code, &length);
        int byte = kind == SPW_TOK_UTF8_VALID ? spw_tok_alphabet_byte(code) : -1;
        if (byte < 0) {
            if (!out_bytes->failed)
                out_bytes->bytes = before;
            return false;
        }
        spw_buffer_add_u8(out_bytes, (uint8_t)byte);
        at += length;
    }
    return true;
}
