/* "%s and %5.2f" % (a, b), and "{} {name:>5}".format(...). */
#include "runtime/model/chat_template_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define WIDTH_MAX     10000
#define PRECISION_MAX 300

/* What stands in one conversion or replacement field. */
struct spec {
    struct spw_ct_value fill; /* one character */
    char align;               /* '<' '>' '^' '=', 0: by type */
    char sign;                /* '-', '+' or ' ' */
    bool alternate, zero, comma;
    int64_t width;
    int64_t precision; /* -1: none */
    char type;         /* 0: none */
};

struct cursor {
    struct spw_ct_run *run;
    struct spw_ct_value text;
    size_t at;
};

static char peek(const struct cursor *cursor)
{
    return cursor->at < cursor->text.bytes ? cursor->text.text[cursor->at] : '\0';
}

static bool skip(struct cursor *cursor, char c)
{
    if (peek(cursor) != c || cursor->at >= cursor->text.bytes)
        return false;
    cursor->at++;
    return true;
}

static int64_t number(struct cursor *cursor, int64_t max)
{
    int64_t value = 0;
    while (peek(cursor) >= '0' && peek(cursor) <= '9') {
        value = value * 10 + (cursor->text.text[cursor->at++] - '0');
        if (value > max) {
            spw_ct_fail(cursor->run, "ValueError", "width or precision too big");
            return 0;
        }
    }
    return value;
}

/* Digits in groups of three from the right. */
static void add_grouped(struct spw_buffer *out, const char *digits, bool comma)
{
    size_t whole = strspn(digits, "0123456789");
    for (size_t i = 0; digits[i]; i++) {
        if (comma && i > 0 && i < whole && (whole - i) % 3 == 0)
            spw_buffer_add(out, ",", 1);
        spw_buffer_add(out, &digits[i], 1);
    }
}

/* The digits of a number without its sign. false: this type does not fit the value. */
static bool number_digits(struct spw_buffer *out, const struct spec *spec,
                          struct spw_ct_value value)
{
    char digits[700];
    char letter = spec->type ? spec->type : value.kind == SPW_CT_FLOAT ? 'r' : 'd';
    int64_t integer = 0;
    if (strchr("dxXob", letter)) {
        if (!spw_ct_is_integral(value, &integer))
            return false;
        uint64_t magnitude = integer < 0 ? 0 - (uint64_t)integer : (uint64_t)integer;
        if (letter == 'b') {
            size_t used = sizeof(digits) - 1;
            digits[used] = '\0';
            do {
                digits[--used] = (char)('0' + (magnitude & 1));
            } while (magnitude >>= 1);
            spw_buffer_format(out, "%s%s", spec->alternate ? "0b" : "", digits + used);
            return true;
        }
        const char *prefix = !spec->alternate ? ""
                             : letter == 'o'  ? "0o"
                             : letter == 'x'  ? "0x"
                                              : "0X";
        snprintf(digits, sizeof(digits),
                 letter == 'o'   ? "%llo"
                 : letter == 'x' ? "%llx"
                 : letter == 'X' ? "%llX"
                                 : "%llu",
                 (unsigned long long)magnitude);
        if (letter != 'd')
            spw_buffer_add_text(out, prefix);
        add_grouped(out, digits, spec->comma && letter == 'd');
        return true;
    }
    double real = fabs(spw_ct_real(value));
    int precision = spec->precision < 0 ? 6 : (int)spec->precision;
    if (!isfinite(real)) {
        bool upper = letter >= 'A' && letter <= 'Z';
        spw_buffer_add_text(out, isnan(real) ? (upper ? "NAN" : "nan") : upper ? "INF" : "inf");
    } else if (letter == 'r' && spec->precision < 0) {
        struct spw_buffer plain;
        spw_ct_buffer_init(&plain);
        spw_ct_add_float(&plain, real);
        add_grouped(out, spw_buffer_text(&plain), spec->comma);
        spw_buffer_done(&plain);
    } else {
        bool percent = letter == '%';
        const char *format = letter == 'e'                    ? "%.*e"
                             : letter == 'E'                  ? "%.*E"
                             : letter == 'g' || letter == 'r' ? "%.*g"
                             : letter == 'G'                  ? "%.*G"
                                                              : "%.*f";
        snprintf(digits, sizeof(digits), format, precision, percent ? real * 100 : real);
        add_grouped(out, digits, spec->comma);
        if (percent)
            spw_buffer_add(out, "%", 1);
    }
    return true;
}

/* sign and body, filled up to the width. */
static void add_padded(struct spw_ct_run *run, struct spw_buffer *out, const struct spec *spec,
                       const char *sign, struct spw_ct_value body, char align)
{
    int64_t space =
        spec->width - (int64_t)strlen(sign) - (int64_t)spw_ct_points(body.text, body.bytes);
    int64_t left = align == '<' ? 0 : align == '^' ? space / 2 : space;
    if (space > 0)
        spw_ct_charge(run, (uint64_t)space / 64);
    if (align == '=')
        spw_buffer_add_text(out, sign);
    for (int64_t i = 0; i < left && !out->failed; i++)
        spw_buffer_add(out, spec->fill.text, spec->fill.bytes);
    if (align != '=')
        spw_buffer_add_text(out, sign);
    spw_buffer_add(out, body.text, body.bytes);
    for (int64_t i = SPW_MAX(left, 0); i < space && !out->failed; i++)
        spw_buffer_add(out, spec->fill.text, spec->fill.bytes);
}

static void add_number(struct spw_ct_run *run, struct spw_buffer *out, const struct spec *spec,
                       struct spw_ct_value value)
{
    struct spw_buffer digits;
    spw_ct_buffer_init(&digits);
    bool negative = value.kind == SPW_CT_FLOAT ? signbit(value.real) && !isnan(value.real)
                                               : spw_ct_real(value) < 0;
    const char *sign = negative ? "-" : spec->sign == '+' ? "+" : spec->sign == ' ' ? " " : "";
    if (!number_digits(&digits, spec, value))
        spw_ct_fail(run, "ValueError", "Unknown format code '%c' for object of type '%s'",
                    spec->type, spw_ct_type_name(value));
    else
        add_padded(run, out, spec, sign, spw_ct_text((char *)digits.data, digits.bytes),
                   spec->align  ? spec->align
                   : spec->zero ? '='
                                : '>');
    spw_buffer_done(&digits);
}

static void add_text(struct spw_ct_run *run, struct spw_buffer *out, const struct spec *spec,
                     struct spw_ct_value text, char align)
{
    if (spec->precision >= 0)
        text.bytes = spw_ct_offset(text.text, text.bytes, (size_t)spec->precision);
    add_padded(run, out, spec, "", text, spec->align ? spec->align : align);
}

/* ---- % ---- */

struct percent {
    struct cursor cursor;
    struct spw_ct_value args;
    size_t used;
};

static struct spw_ct_value next_argument(struct percent *percent)
{
    size_t count = percent->args.kind == SPW_CT_TUPLE ? percent->args.list->count : 1;
    if (percent->used >= count)
        return spw_ct_fail(percent->cursor.run, "TypeError",
                           "not enough arguments for format string");
    return percent->args.kind == SPW_CT_TUPLE ? percent->args.list->items[percent->used++]
                                              : (percent->used++, percent->args);
}

static int64_t width_or_star(struct percent *percent, int64_t max)
{
    int64_t width = 0;
    if (!skip(&percent->cursor, '*'))
        return number(&percent->cursor, max);
    if (!spw_ct_is_integral(next_argument(percent), &width) || width > max || width < -max)
        spw_ct_fail(percent->cursor.run, "TypeError", "* wants int");
    return width;
}

static void percent_value(struct percent *percent, struct spw_buffer *out, struct spec *spec,
                          struct spw_ct_value value)
{
    struct spw_ct_run *run = percent->cursor.run;
    char type = spec->type;
    if (type == 's' || type == 'r' || type == 'a') {
        spec->align = spec->align ? spec->align : '>';
        spec->fill = spw_ct_word(" ");
        value = type == 's' ? spw_ct_string(run, value) : spw_ct_repr(run, value);
        add_text(run, out, spec, value, '>');
    } else if (type == 'c') {
        int64_t point = 0;
        struct spw_buffer one;
        spw_ct_buffer_init(&one);
        if (value.kind == SPW_CT_STRING && spw_ct_points(value.text, value.bytes) == 1)
            spw_buffer_add(&one, value.text, value.bytes);
        else if (spw_ct_is_integral(value, &point) && point >= 0 && point <= 0x10ffff &&
                 (point < 0xd800 || point > 0xdfff))
            spw_ct_add_point(&one, (uint32_t)point);
        else
            spw_ct_fail(run, "TypeError", "%%c requires int or char");
        spec->precision = -1;
        add_text(run, out, spec, spw_ct_text((char *)one.data, one.bytes), '>');
        spw_buffer_done(&one);
    } else if (type && strchr("diuxXoeEfFgG", type)) {
        bool integral = strchr("diuxXo", type) != NULL;
        if (value.kind == SPW_CT_UNDEFINED)
            spw_ct_fail_undefined(run, value);
        else if (!spw_ct_is_number(value) && integral)
            spw_ct_fail(run, "TypeError", "%%%c format: %s is required, not %s", type,
                        strchr("diu", type) ? "a real number" : "an integer",
                        spw_ct_type_name(value));
        else if (!spw_ct_is_number(value))
            spw_ct_fail(run, "TypeError", "must be real number, not %s", spw_ct_type_name(value));
        if (run->failed)
            return;
        if (type == 'i' || type == 'u')
            spec->type = 'd';
        if (integral && value.kind == SPW_CT_FLOAT && spec->type == 'd' &&
            fabs(value.real) < 9.2e18)
            value = spw_ct_int((int64_t)value.real);
        add_number(run, out, spec, value);
    } else {
        spw_ct_fail(run, "ValueError", "unsupported format character '%c' at index %zu",
                    type > 31 && type < 127 ? type : '?', percent->cursor.at - 1);
    }
}

static void percent_field(struct percent *percent, struct spw_buffer *out)
{
    struct cursor *cursor = &percent->cursor;
    struct spec spec = {.fill = spw_ct_word(" "), .precision = -1};
    struct spw_ct_value named = {0};
    if (skip(cursor, '(')) {
        size_t start = cursor->at;
        while (cursor->at < cursor->text.bytes && peek(cursor) != ')')
            cursor->at++;
        struct spw_ct_value key = spw_ct_text(cursor->text.text + start, cursor->at - start);
        const struct spw_ct_value *found = NULL;
        if (!skip(cursor, ')')) {
            spw_ct_fail(cursor->run, "ValueError", "incomplete format key");
        } else if (percent->args.kind != SPW_CT_DICT) {
            spw_ct_fail(cursor->run, "TypeError", "format requires a mapping");
        } else {
            found = spw_ct_dict_find(cursor->run, percent->args.dict, key);
            if (!found)
                spw_ct_fail(cursor->run, "KeyError", "'%.*s'", (int)SPW_MIN(key.bytes, 100u),
                            key.text);
        }
        if (!found)
            return;
        named = *found;
    }
    for (bool flags = true; flags;) {
        flags = false;
        if (skip(cursor, '-'))
            flags = (spec.align = '<') != 0;
        else if (skip(cursor, '+'))
            flags = (spec.sign = '+') != 0;
        else if (skip(cursor, ' '))
            flags = (spec.sign = spec.sign ? spec.sign : ' ') != 0;
        else if (skip(cursor, '0'))
            flags = spec.zero = true;
        else if (skip(cursor, '#'))
            flags = spec.alternate = true;
    }
    spec.width = width_or_star(percent, WIDTH_MAX);
    if (spec.width < 0) {
        spec.align = '<';
        spec.width = -spec.width;
    }
    if (skip(cursor, '.')) {
        int64_t precision = width_or_star(percent, PRECISION_MAX);
        spec.precision = SPW_MAX(precision, 0);
    }
    while (skip(cursor, 'l') || skip(cursor, 'h') || skip(cursor, 'L'))
        continue;
    if (cursor->at >= cursor->text.bytes) {
        spw_ct_fail(cursor->run, "ValueError", "incomplete format");
        return;
    }
    spec.type = cursor->text.text[cursor->at++];
    if (spec.type == '%') {
        spw_buffer_add(out, "%", 1);
        return;
    }
    if (spec.zero && spec.align != '<' && !strchr("sra", spec.type))
        spec.fill = spw_ct_word("0");
    struct spw_ct_value value = named.kind == SPW_CT_MISSING ? next_argument(percent) : named;
    if (!cursor->run->failed)
        percent_value(percent, out, &spec, value);
}

struct spw_ct_value spw_ct_percent(struct spw_ct_run *run, struct spw_ct_value text,
                                   struct spw_ct_value args)
{
    struct percent percent = {.cursor = {.run = run, .text = text}, .args = args};
    struct cursor *cursor = &percent.cursor;
    struct spw_buffer out;
    spw_ct_buffer_init(&out);
    while (cursor->at < text.bytes && !run->failed && !out.failed) {
        if (skip(cursor, '%'))
            percent_field(&percent, &out);
        else
            spw_buffer_add(&out, &text.text[cursor->at++], 1);
    }
    bool all = args.kind == SPW_CT_TUPLE
                   ? percent.used >= args.list->count
                   : percent.used || args.kind == SPW_CT_DICT || args.kind == SPW_CT_LIST ||
                         args.kind == SPW_CT_UNDEFINED || args.kind == SPW_CT_RANGE;
    if (!all && !run->failed)
        spw_ct_fail(run, "TypeError", "not all arguments converted during string formatting");
    return spw_ct_collect(run, &out);
}

/* ---- format() ---- */

struct format {
    struct cursor cursor;
    const struct spw_ct_args *args;
    size_t automatic;
    unsigned depth;
};

static void format_text(struct format *format, struct spw_buffer *out, bool in_spec);

/* "0", "name" or nothing, then ".attribute" and "[key]". */
static struct spw_ct_value field_value(struct format *format)
{
    struct cursor *cursor = &format->cursor;
    struct spw_ct_run *run = cursor->run;
    size_t start = cursor->at;
    while (cursor->at < cursor->text.bytes && !strchr(".[!:}", peek(cursor)))
        cursor->at++;
    struct spw_ct_value name = spw_ct_text(cursor->text.text + start, cursor->at - start);
    const struct spw_ct_value *found = NULL;
    int64_t index = 0;
    if (name.bytes == 0 || spw_ct_parse_int(name, 10, &index)) {
        if (name.bytes == 0)
            index = (int64_t)format->automatic++;
        if (index >= 0 && (size_t)index < format->args->count)
            found = &format->args->values[index];
        else
            spw_ct_fail(run, "IndexError", "tuple index out of range");
    } else if (format->args->named) {
        found = spw_ct_dict_find(run, format->args->named, name);
    }
    if (!found)
        return spw_ct_fail(run, "KeyError", "'%.*s'", (int)SPW_MIN(name.bytes, 100u), name.text);
    struct spw_ct_value value = *found;
    while (!run->failed && (peek(cursor) == '.' || peek(cursor) == '[')) {
        bool item = cursor->text.text[cursor->at++] == '[';
        start = cursor->at;
        while (cursor->at < cursor->text.bytes && !strchr(item ? "]" : ".[!:}", peek(cursor)))
            cursor->at++;
        struct spw_ct_value key = spw_ct_text(cursor->text.text + start, cursor->at - start);
        if (item && !skip(cursor, ']'))
            return spw_ct_fail(run, "ValueError", "Missing ']' in format string");
        if (item && spw_ct_parse_int(key, 10, &index))
            key = spw_ct_int(index);
        value = item ? spw_ct_item(run, value, key) : spw_ct_attribute(run, value, key);
    }
    return value;
}

static void apply_spec(struct spw_ct_run *run, struct spw_buffer *out, struct spw_ct_value value,
                       struct spw_ct_value text)
{
    struct cursor cursor = {.run = run, .text = text};
    struct spec spec = {.fill = spw_ct_word(" "), .precision = -1};
    if (text.bytes == 0) {
        spw_ct_print(run, out, value);
        return;
    }
    size_t fill_end = 0;
    spw_ct_point(text.text, text.bytes, &fill_end);
    if (fill_end < text.bytes && strchr("<>^=", text.text[fill_end]) && text.text[fill_end]) {
        spec.fill = spw_ct_text(text.text, fill_end);
        spec.align = text.text[fill_end];
        cursor.at = fill_end + 1;
    } else if (peek(&cursor) && strchr("<>^=", peek(&cursor))) {
        spec.align = text.text[cursor.at++];
    }
    if (peek(&cursor) && strchr("+- ", peek(&cursor)))
        spec.sign = text.text[cursor.at++];
    spec.alternate = skip(&cursor, '#');
    if (skip(&cursor, '0') && !spec.align) {
        spec.zero = true;
        spec.fill = spw_ct_word("0");
    }
    spec.width = number(&cursor, WIDTH_MAX);
    spec.comma = skip(&cursor, ',');
    if (skip(&cursor, '.'))
        spec.precision = number(&cursor, PRECISION_MAX);
    if (cursor.at < text.bytes)
        spec.type = text.text[cursor.at++];
    if (run->failed)
        return;
    bool numeric = spw_ct_is_number(value) && !(value.kind == SPW_CT_BOOL && !spec.type);
    if (cursor.at < text.bytes || (spec.type && !strchr("sdxXobeEfFgG%", spec.type)) ||
        (numeric ? spec.type == 's' : spec.type && spec.type != 's') || (!numeric && spec.sign))
        spw_ct_fail(run, "ValueError", "Invalid format specifier '%.*s' for object of type '%s'",
                    (int)SPW_MIN(text.bytes, 60u), text.text, spw_ct_type_name(value));
    else if (numeric)
        add_number(run, out, &spec, value);
    else if (value.kind == SPW_CT_STRING || value.kind == SPW_CT_BOOL)
        add_text(run, out, &spec, spw_ct_string(run, value), '<');
    else
        spw_ct_fail(run, "TypeError", "unsupported format string passed to %s.__format__",
                    spw_ct_type_name(value));
}

static void format_field(struct format *format, struct spw_buffer *out)
{
    struct cursor *cursor = &format->cursor;
    struct spw_ct_run *run = cursor->run;
    struct spw_ct_value value = field_value(format);
    if (skip(cursor, '!')) {
        char conversion = peek(cursor);
        cursor->at += cursor->at < cursor->text.bytes;
        if (conversion == 'r' || conversion == 'a')
            value = spw_ct_repr(run, value);
        else if (conversion == 's')
            value = spw_ct_string(run, value);
        else
            spw_ct_fail(run, "ValueError", "unknown conversion in format string");
    }
    struct spw_buffer spec;
    spw_ct_buffer_init(&spec);
    if (skip(cursor, ':')) {
        if (++format->depth > 2)
            spw_ct_fail(run, "ValueError", "Max string recursion exceeded");
        else
            format_text(format, &spec, true);
        format->depth--;
    }
    if (!skip(cursor, '}'))
        spw_ct_fail(run, "ValueError", "expected '}' before end of string");
    if (!run->failed)
        apply_spec(run, out, value, spw_ct_text((char *)spec.data, spec.bytes));
    spw_buffer_done(&spec);
}

/* The whole text, or a specification up to its "}". */
static void format_text(struct format *format, struct spw_buffer *out, bool in_spec)
{
    struct cursor *cursor = &format->cursor;
    while (cursor->at < cursor->text.bytes && !cursor->run->failed && !out->failed) {
        char c = peek(cursor);
        if (c == '}' && in_spec)
            return;
        cursor->at++;
        if (c == '{' && !(skip(cursor, '{') && !in_spec))
            format_field(format, out);
        else if (c == '}' && !skip(cursor, '}'))
            spw_ct_fail(cursor->run, "ValueError", "Single '}' encountered in format string");
        else
            spw_buffer_add(out, &c, 1);
    }
}

struct spw_ct_value spw_ct_format(struct spw_ct_run *run, struct spw_ct_value text,
                                  const struct spw_ct_args *args)
{
    struct format format = {.cursor = {.run = run, .text = text}, .args = args};
    struct spw_buffer out;
    spw_ct_buffer_init(&out);
    format_text(&format, &out, false);
    return spw_ct_collect(run, &out);
}
