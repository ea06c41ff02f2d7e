/* Texts: UTF-8, and what Python's string methods do with it. */
#include "runtime/model/chat_template_int.h"

#include <string.h>

/* Length of the sequence that starts with this byte, 0 for a byte that starts none. */
static size_t sequence(unsigned char c)
{
    return c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
}

uint32_t spw_ct_point(const char *text, size_t bytes, size_t *at)
{
    assert(*at < bytes);
    const unsigned char *start = (const unsigned char *)text + *at;
    size_t count = sequence(start[0]);
    if (count <= 1 || count > bytes - *at) {
        *at += 1;
        return start[0];
    }
    uint32_t point = start[0] & (0x7fu >> count);
    for (size_t i = 1; i < count; i++)
        point = point << 6 | (start[i] & 0x3fu);
    *at += count;
    return point;
}

uint32_t spw_ct_point_before(const char *text, size_t *at)
{
    assert(*at > 0);
    size_t end = *at;
    do {
        (*at)--;
    } while (*at > 0 && ((unsigned char)text[*at] & 0xc0) == 0x80);
    size_t start = *at;
    return spw_ct_point(text, end, &start);
}

bool spw_ct_valid(const char *text, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        size_t count = sequence((unsigned char)text[at]);
        if (count == 0 || count > bytes - at)
            return false;
        for (size_t i = 1; i < count; i++)
            if (((unsigned char)text[at + i] & 0xc0) != 0x80)
                return false;
        size_t next = at;
        uint32_t point = spw_ct_point(text, bytes, &next);
        if ((count == 3 && point < 0x800) || (count == 4 && point < 0x10000) || point > 0x10ffff ||
            (point >= 0xd800 && point <= 0xdfff))
            return false;
        at = next;
    }
    return true;
}

void spw_ct_add_point(struct spw_buffer *out, uint32_t point)
{
    if (point < 0x80) {
        spw_buffer_add_u8(out, (uint8_t)point);
        return;
    }
    unsigned shift = point < 0x800 ? 6 : point < 0x10000 ? 12 : 18;
    static const uint8_t leads[] = {0xc0, 0xe0, 0xf0};
    spw_buffer_add_u8(out, (uint8_t)(leads[shift / 6 - 1] | point >> shift));
    for (; shift > 0; shift -= 6)
        spw_buffer_add_u8(out, (uint8_t)(0x80 | ((point >> (shift - 6)) & 0x3f)));
}

size_t spw_ct_points(const char *text, size_t bytes)
{
    size_t points = 0;
    for (size_t i = 0; i < bytes; i++)
        points += ((unsigned char)text[i] & 0xc0) != 0x80;
    return points;
}

size_t spw_ct_offset(const char *text, size_t bytes, size_t points)
{
    size_t at = 0;
    for (; points > 0 && at < bytes; points--)
        spw_ct_point(text, bytes, &at);
    return at;
}

static bool strips(uint32_t point, const struct spw_ct_value *chars)
{
    if (!chars)
        return spw_ct_is_space(point);
    for (size_t at = 0; at < chars->bytes;)
        if (spw_ct_point(chars->text, chars->bytes, &at) == point)
            return true;
    return false;
}

struct spw_ct_value spw_ct_strip(struct spw_ct_value text, const struct spw_ct_value *chars,
                                 bool left, bool right)
{
    size_t start = 0;
    size_t end = text.bytes;
    for (size_t next = 0; left && next < end; start = next)
        if (!strips(spw_ct_point(text.text, end, &next), chars))
            break;
    for (size_t before = end; right && before > start; end = before)
        if (!strips(spw_ct_point_before(text.text, &before), chars))
            break;
    return spw_ct_text(text.text + start, end - start);
}

bool spw_ct_find(struct spw_ct_value text, struct spw_ct_value part, size_t from, size_t *out)
{
    if (from > text.bytes || part.bytes > text.bytes - from)
        return false;
    if (part.bytes == 0) {
        *out = from;
        return true;
    }
    const char *found = memmem(text.text + from, text.bytes - from, part.text, part.bytes);
    if (found)
        *out = (size_t)(found - text.text);
    return found != NULL;
}

bool spw_ct_find_last(struct spw_ct_value text, struct spw_ct_value part, size_t end, size_t *out)
{
    for (size_t at = end; part.bytes <= end && at + 1 > part.bytes; at--) {
        size_t start = at - part.bytes;
        if (memcmp(text.text + start, part.text, part.bytes) == 0) {
            *out = start;
            return true;
        }
    }
    return false;
}

/* A capital sigma is written differently at the end of a word. */
static bool final_sigma(struct spw_ct_value text, size_t start, size_t end)
{
    size_t next = end;
    bool before = start > 0 && spw_ct_is_alpha(spw_ct_point_before(text.text, &start));
    bool after = end < text.bytes && spw_ct_is_alpha(spw_ct_point(text.text, text.bytes, &next));
    return before && !after;
}

static void add_cased(struct spw_buffer *out, struct spw_ct_value text, size_t start, size_t end,
                      uint32_t point, enum spw_ct_case target)
{
    if (point == 0x3a3 && target == SPW_CT_CASE_LOWER && final_sigma(text, start, end))
        point = 0x3c2;
    spw_ct_add_case(out, point, target);
}

struct spw_ct_value spw_ct_convert(struct spw_ct_run *run, struct spw_ct_value text,
                                   enum spw_ct_case target)
{
    struct spw_buffer out;
    spw_ct_buffer_init(&out);
    bool in_word = false; /* for title case: each first letter up, others down */
    for (size_t at = 0; at < text.bytes && !out.failed;) {
        size_t start = at;
        uint32_t point = spw_ct_point(text.text, text.bytes, &at);
        bool title = target == SPW_CT_CASE_TITLE;
        add_cased(&out, text, start, at, point, title && in_word ? SPW_CT_CASE_LOWER : target);
        in_word = spw_ct_is_alpha(point) && (spw_ct_is_lower(point) || spw_ct_is_upper(point));
    }
    return spw_ct_collect(run, &out);
}

struct spw_ct_value spw_ct_capitalize(struct spw_ct_run *run, struct spw_ct_value text)
{
    struct spw_buffer out;
    spw_ct_buffer_init(&out);
    for (size_t at = 0; at < text.bytes && !out.failed;) {
        size_t start = at;
        uint32_t point = spw_ct_point(text.text, text.bytes, &at);
        add_cased(&out, text, start, at, point, start == 0 ? SPW_CT_CASE_TITLE : SPW_CT_CASE_LOWER);
    }
    return spw_ct_collect(run, &out);
}

static void replace_between(struct spw_buffer *out, struct spw_ct_value text,
                            struct spw_ct_value to, int64_t max)
{
    size_t at = 0;
    while (at < text.bytes && max != 0 && !out->failed) {
        size_t start = at;
        spw_ct_point(text.text, text.bytes, &at);
        spw_buffer_add(out, to.text, to.bytes);
        spw_buffer_add(out, text.text + start, at - start);
        max--;
    }
    spw_buffer_add(out, text.text + at, text.bytes - at);
    if (max != 0)
        spw_buffer_add(out, to.text, to.bytes);
}

struct spw_ct_value spw_ct_replace(struct spw_ct_run *run, struct spw_ct_value text,
                                   struct spw_ct_value from, struct spw_ct_value to, int64_t max)
{
    size_t at = 0;
    size_t found = 0;
    if (from.bytes && !spw_ct_find(text, from, 0, &found))
        return text;
    struct spw_buffer out;
    spw_ct_buffer_init(&out);
    if (from.bytes == 0) {
        replace_between(&out, text, to, max);
        return spw_ct_collect(run, &out);
    }
    while (max != 0 && spw_ct_find(text, from, at, &found) && !out.failed) {
        spw_buffer_add(&out, text.text + at, found - at);
        spw_buffer_add(&out, to.text, to.bytes);
        at = found + from.bytes;
        max--;
    }
    spw_buffer_add(&out, text.text + at, text.bytes - at);
    return spw_ct_collect(run, &out);
}

static bool is_line_end(uint32_t point)
{
    return (point >= 10 && point <= 13) || (point >= 28 && point <= 30) || point == 0x85 ||
           point == 0x2028 || point == 0x2029;
}

struct spw_ct_list *spw_ct_split_lines(struct spw_ct_run *run, struct spw_ct_value text, bool keep)
{
    struct spw_ct_list *list = spw_ct_list_new(run, 0);
    size_t start = 0;
    for (size_t at = 0; at < text.bytes && !run->failed;) {
        size_t end = at;
        uint32_t point = spw_ct_point(text.text, text.bytes, &at);
        if (!is_line_end(point))
            continue;
        if (point == '\r' && at < text.bytes && text.text[at] == '\n')
            at++;
        spw_ct_list_add(run, list, spw_ct_text(text.text + start, (keep ? at : end) - start));
        start = at;
    }
    if (start < text.bytes)
        spw_ct_list_add(run, list, spw_ct_text(text.text + start, text.bytes - start));
    return list;
}

static void reverse(struct spw_ct_list *list)
{
    for (size_t i = 0; list && i < list->count / 2; i++) {
        struct spw_ct_value first = list->items[i];
        list->items[i] = list->items[list->count - 1 - i];
        list->items[list->count - 1 - i] = first;
    }
}

static void split_at_space(struct spw_ct_run *run, struct spw_ct_list *list,
                           struct spw_ct_value text, int64_t max, bool from_right)
{
    text = spw_ct_strip(text, NULL, !from_right, from_right);
    while (text.bytes > 0 && !run->failed) {
        size_t start = from_right ? text.bytes : 0; /* the word is start..end, or end..start */
        size_t end = start;
        size_t next = start;
        while (from_right ? next > 0 : next < text.bytes) {
            uint32_t point = from_right ? spw_ct_point_before(text.text, &next)
                                        : spw_ct_point(text.text, text.bytes, &next);
            if (spw_ct_is_space(point))
                break;
            end = next;
        }
        if (max-- == 0) {
            spw_ct_list_add(run, list, spw_ct_strip(text, NULL, !from_right, from_right));
            break;
        }
        if (from_right) {
            spw_ct_list_add(run, list, spw_ct_text(text.text + end, text.bytes - end));
            text = spw_ct_strip(spw_ct_text(text.text, end), NULL, false, true);
        } else {
            spw_ct_list_add(run, list, spw_ct_text(text.text, end));
            text = spw_ct_strip(spw_ct_text(text.text + end, text.bytes - end), NULL, true, false);
        }
    }
}

struct spw_ct_list *spw_ct_split(struct spw_ct_run *run, struct spw_ct_value text,
                                 const struct spw_ct_value *separator, int64_t max, bool from_right)
{
    struct spw_ct_list *list = spw_ct_list_new(run, 0);
    size_t found = 0;
    if (!separator) {
        split_at_space(run, list, text, max, from_right);
    } else if (from_right) {
        while (max-- != 0 && spw_ct_find_last(text, *separator, text.bytes, &found)) {
            size_t end = found + separator->bytes;
            spw_ct_list_add(run, list, spw_ct_text(text.text + end, text.bytes - end));
            text.bytes = found;
        }
        spw_ct_list_add(run, list, text);
    } else {
        size_t at = 0;
        while (max-- != 0 && spw_ct_find(text, *separator, at, &found)) {
            spw_ct_list_add(run, list, spw_ct_text(text.text + at, found - at));
            at = found + separator->bytes;
        }
        spw_ct_list_add(run, list, spw_ct_text(text.text + at, text.bytes - at));
    }
    if (from_right)
        reverse(list);
    return list;
}

struct spw_ct_value spw_ct_join(struct spw_ct_run *run, struct spw_ct_value separator,
                                const struct spw_ct_list *list)
{
    struct spw_buffer out;
    spw_ct_buffer_init(&out);
    for (size_t i = 0; list && i < list->count && !run->failed && !out.failed; i++) {
        if (i > 0)
            spw_buffer_add(&out, separator.text, separator.bytes);
        spw_ct_charge(run, 1);
        spw_ct_print(run, &out, list->items[i]);
    }
    return spw_ct_collect(run, &out);
}

struct spw_ct_value spw_ct_pad(struct spw_ct_run *run, struct spw_ct_value text, int64_t width,
                               struct spw_ct_value fill, int left_of_two)
{
    int64_t points = (int64_t)spw_ct_points(text.text, text.bytes);
    if (width <= points)
        return text;
    if (!spw_ct_charge(run, (uint64_t)(width - points) / 64))
        return text;
    int64_t space = width - points;
    /* as Python centres: the odd one goes left when the width is odd */
    int64_t left = left_of_two == 0   ? 0
                   : left_of_two == 2 ? space
                                      : space / 2 + (space & width & 1);
    struct spw_buffer out;
    spw_ct_buffer_init(&out);
    for (int64_t i = 0; i < left && !out.failed; i++)
        spw_buffer_add(&out, fill.text, fill.bytes);
    spw_buffer_add(&out, text.text, text.bytes);
    for (int64_t i = left; i < space && !out.failed; i++)
        spw_buffer_add(&out, fill.text, fill.bytes);
    return spw_ct_collect(run, &out);
}
