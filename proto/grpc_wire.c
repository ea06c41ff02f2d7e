#include "proto/grpc_wire.h"

#include <stdio.h>

const char *spw_grpc_status_name(enum spw_grpc_status status)
{
    switch (status) {
#define X(name, number)                                                                            \
    case SPW_GRPC_##name:                                                                          \
        return #name;
        SPW_GRPC_STATUS_TABLE(X)
#undef X
    }
    return "UNKNOWN";
}

void spw_grpc_prefix_put(uint8_t *out_prefix, uint32_t message_bytes)
{
    out_prefix[0] = 0;
    out_prefix[1] = (uint8_t)(message_bytes >> 24);
    out_prefix[2] = (uint8_t)(message_bytes >> 16);
    out_prefix[3] = (uint8_t)(message_bytes >> 8);
    out_prefix[4] = (uint8_t)message_bytes;
}

uint32_t spw_grpc_prefix_length(const uint8_t *prefix)
{
    return (uint32_t)prefix[1] << 24 | (uint32_t)prefix[2] << 16 | (uint32_t)prefix[3] << 8 |
           prefix[4];
}

size_t spw_grpc_percent_encode(const char *text, char *out_text, size_t capacity)
{
    static const char digits[] = "0123456789ABCDEF";
    assert(capacity > 0);
    size_t at = 0;
    for (const char *from = text; *from; from++) {
        uint8_t byte = (uint8_t)*from;
        bool plain = byte >= 0x20 && byte <= 0x7e && byte != '%';
        if (at + (plain ? 1 : 3) >= capacity)
            break;
        if (plain) {
            out_text[at++] = (char)byte;
        } else {
            out_text[at++] = '%';
            out_text[at++] = digits[byte >> 4];
            out_text[at++] = digits[byte & 15];
        }
    }
    out_text[at] = '\0';
    return at;
}

static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    return -1;
}

size_t spw_grpc_percent_decode(const char *text, size_t bytes, char *out_text, size_t capacity)
{
    assert(capacity > 0);
    size_t at = 0;
    for (size_t i = 0; i < bytes && at + 1 < capacity; i++) {
        if (text[i] == '%' && bytes - i > 2 && hex_digit(text[i + 1]) >= 0 &&
            hex_digit(text[i + 2]) >= 0) {
            out_text[at++] = (char)(hex_digit(text[i + 1]) << 4 | hex_digit(text[i + 2]));
            i += 2;
        } else {
            out_text[at++] = text[i];
        }
    }
    out_text[at] = '\0';
    return at;
}

static const struct {
    char unit;
    uint64_t ns;
} timeout_units[] = {
    {'n', 1},          {'u', 1000},           {'m', 1000000},
    {'S', 1000000000}, {'M', 60000000000ull}, {'H', 3600000000000ull},
};

bool spw_grpc_timeout_parse(const char *text, size_t bytes, uint64_t *out_ns)
{
    if (bytes < 2 || bytes > 9)
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i + 1 < bytes; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    for (size_t i = 0; i < SPW_ARRAY_COUNT(timeout_units); i++) {
        if (timeout_units[i].unit == text[bytes - 1]) {
            /* at most 99999999 hours, which is more than 2^64 ns: no limit, then */
            bool fits = value <= UINT64_MAX / timeout_units[i].ns;
            *out_ns = fits ? value * timeout_units[i].ns : UINT64_MAX;
            return true;
        }
    }
    return false;
}

void spw_grpc_timeout_format(uint64_t timeout_ns, char *out_text)
{
    for (size_t i = 0; i < SPW_ARRAY_COUNT(timeout_units); i++) {
        uint64_t unit_ns = timeout_units[i].ns;
        uint64_t value = timeout_ns / unit_ns + (timeout_ns % unit_ns > 0);
        if (value <= 99999999) {
            snprintf(out_text, 10, "%u%c", (unsigned)value, timeout_units[i].unit);
            return;
        }
    }
    assert(!"every 64-bit time fits in hours");
}

/* Bytes that follow a first byte, and the bounds of the second (RFC 3629); -1: no first byte. */
static int sequence_of(uint8_t first, uint8_t *out_low, uint8_t *out_high)
{
    *out_low = 0x80;
    *out_high = 0xbf;
    if (first >= 0xc2 && first <= 0xdf)
        return 1;
    if (first >= 0xe0 && first <= 0xef) {
        if (first == 0xe0)
            *out_low = 0xa0;
        if (first == 0xed)
            *out_high = 0x9f;
        return 2;
    }
    if (first >= 0xf0 && first <= 0xf4) {
        if (first == 0xf0)
            *out_low = 0x90;
        if (first == 0xf4)
            *out_high = 0x8f;
        return 3;
    }
    return -1;
}

bool spw_grpc_text_valid(const uint8_t *text, size_t bytes, bool zero_allowed)
{
    for (size_t i = 0; i < bytes;) {
        uint8_t first = text[i++];
        if (first == 0 && !zero_allowed)
            return false;
        if (first < 0x80)
            continue;
        uint8_t low, high;
        int follow = sequence_of(first, &low, &high);
        if (follow < 0 || bytes - i < (size_t)follow || text[i] < low || text[i] > high)
            return false;
        for (int k = 1; k < follow; k++)
            if ((text[i + (size_t)k] & 0xc0) != 0x80)
                return false;
        i += (size_t)follow;
    }
    return true;
}
