/* Numbers: Python's arithmetic on 64-bit integers and doubles, and + * % of texts and lists. */
#include "runtime/model/chat_template_int.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *operator_text(enum spw_ct_operator operation)
{
    static const char *const texts[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
    return texts[operation];
}

void spw_ct_add_float(struct spw_buffer *out, double real)
{
    if (isnan(real) || isinf(real)) {
        spw_buffer_add_text(out, isnan(real) ? "nan" : real < 0 ? "-inf" : "inf");
        return;
    }
    char text[40];
    int precision = 0;
    do {
        snprintf(text, sizeof(text), "%.*e", precision, real);
    } while (strtod(text, NULL) != real && ++precision <= 17);
    int exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16) {
        *strchr(text, 'e') = '\0';
        spw_buffer_format(out, "%se%c%02d", text, exponent < 0 ? '-' : '+', abs(exponent));
    } else {
        spw_buffer_format(out, "%.*f", SPW_MAX(precision - exponent, 1), real);
    }
}

static struct spw_ct_value too_big(struct spw_ct_run *run)
{
    return spw_ct_fail(run, "OverflowError", "integers beyond 64 bits are not supported");
}

static struct spw_ct_value power_int(struct spw_ct_run *run, int64_t base, int64_t exponent)
{
    int64_t result = 1;
    while (exponent > 0) {
        if ((exponent & 1) && __builtin_mul_overflow(result, base, &result))
            return too_big(run);
        exponent >>= 1;
        if (exponent && __builtin_mul_overflow(base, base, &base))
            return too_big(run);
    }
    return spw_ct_int(result);
}

static struct spw_ct_value arithmetic_int(struct spw_ct_run *run, enum spw_ct_operator operation,
                                          int64_t a, int64_t b)
{
    int64_t result = 0;
    bool overflow = false;
    if (b == 0 && (operation == SPW_CT_FLOOR_DIVIDE || operation == SPW_CT_MODULO))
        return spw_ct_fail(run, "ZeroDivisionError", "integer %smodulo by zero",
                           operation == SPW_CT_MODULO ? "" : "division or ");
    switch (operation) {
    case SPW_CT_ADD:
        overflow = __builtin_add_overflow(a, b, &result);
        break;
    case SPW_CT_SUBTRACT:
        overflow = __builtin_sub_overflow(a, b, &result);
        break;
    case SPW_CT_MULTIPLY:
        overflow = __builtin_mul_overflow(a, b, &result);
        break;
    case SPW_CT_FLOOR_DIVIDE:
        overflow = a == INT64_MIN && b == -1;
        if (!overflow)
            result = a / b - (a % b != 0 && (a < 0) != (b < 0));
        break;
    case SPW_CT_MODULO:
        result = b == -1 ? 0 : a % b;
        if (result != 0 && (result < 0) != (b < 0))
            result += b;
        break;
    default:
        return power_int(run, a, b);
    }
    return overflow ? too_big(run) : spw_ct_int(result);
}

static double floor_divide(double a, double b, double *out_rest)
{
    double rest = fmod(a, b);
    double quotient = (a - rest) / b;
    if (rest != 0 && (rest < 0) != (b < 0)) {
        rest += b;
        quotient -= 1;
    }
    *out_rest = rest != 0 ? rest : copysign(0.0, b);
    double down = floor(quotient);
    if (quotient - down > 0.5)
        down += 1;
    return quotient != 0 ? down : copysign(0.0, a / b);
}

static struct spw_ct_value arithmetic_float(struct spw_ct_run *run, enum spw_ct_operator operation,
                                            double a, double b)
{
    double rest = 0;
    if (b == 0 && (operation == SPW_CT_DIVIDE || operation == SPW_CT_FLOOR_DIVIDE ||
                   operation == SPW_CT_MODULO))
        return spw_ct_fail(run, "ZeroDivisionError", "%s",
                           operation == SPW_CT_DIVIDE         ? "float division by zero"
                           : operation == SPW_CT_FLOOR_DIVIDE ? "float floor division by zero"
                                                              : "float modulo");
    switch (operation) {
    case SPW_CT_ADD:
        return spw_ct_float(a + b);
    case SPW_CT_SUBTRACT:
        return spw_ct_float(a - b);
    case SPW_CT_MULTIPLY:
        return spw_ct_float(a * b);
    case SPW_CT_DIVIDE:
        return spw_ct_float(a / b);
    case SPW_CT_FLOOR_DIVIDE:
        return spw_ct_float(floor_divide(a, b, &rest));
    case SPW_CT_MODULO:
        floor_divide(a, b, &rest);
        return spw_ct_float(rest);
    default:
        if (a == 0 && b < 0)
            return spw_ct_fail(run, "ZeroDivisionError",
                               "0.0 cannot be raised to a negative power");
        if (a < 0 && b != floor(b))
            return spw_ct_fail(run, "TypeError", "complex numbers are not supported");
        if (isfinite(a) && isfinite(b) && isinf(pow(a, b)))
            return spw_ct_fail(run, "OverflowError", "(34, 'Numerical result out of range')");
        return spw_ct_float(pow(a, b));
    }
}

static struct spw_ct_value repeat(struct spw_ct_run *run, struct spw_ct_value value, int64_t times)
{
    times = SPW_MAX(times, 0);
    if (value.kind == SPW_CT_STRING) {
        size_t bytes = 0;
        if (__builtin_mul_overflow(value.bytes, (size_t)times, &bytes) ||
            bytes > SPW_CT_HEAP_BYTES_MAX)
            return spw_ct_fail_size(run, "a text");
        char *text = bytes ? spw_ct_take(run, bytes) : NULL;
        for (size_t i = 0; text && i < bytes; i += value.bytes)
            memcpy(text + i, value.text, value.bytes);
        return spw_ct_text(text, text ? bytes : 0);
    }
    struct spw_ct_list *list = spw_ct_list_new(run, 0);
    for (int64_t i = 0; i < times && value.list->count && !run->failed; i++)
        for (size_t j = 0; j < value.list->count && !run->failed; j++)
            spw_ct_list_add(run, list, value.list->items[j]);
    return spw_ct_from_list(list, value.kind);
}

static struct spw_ct_value concatenate(struct spw_ct_run *run, struct spw_ct_value a,
                                       struct spw_ct_value b)
{
    if (a.kind == SPW_CT_STRING) {
        if (!a.bytes || !b.bytes)
            return a.bytes ? a : b;
        char *text = spw_ct_take(run, a.bytes + b.bytes);
        if (!text)
            return a;
        memcpy(text, a.text, a.bytes);
        memcpy(text + a.bytes, b.text, b.bytes);
        return spw_ct_text(text, a.bytes + b.bytes);
    }
    struct spw_ct_list *list = spw_ct_list_new(run, a.list->count + b.list->count);
    for (size_t i = 0; i < a.list->count; i++)
        spw_ct_list_add(run, list, a.list->items[i]);
    for (size_t i = 0; i < b.list->count; i++)
        spw_ct_list_add(run, list, b.list->items[i]);
    return spw_ct_from_list(list, a.kind);
}

static bool is_sequence(struct spw_ct_value value)
{
    return value.kind == SPW_CT_STRING || value.kind == SPW_CT_LIST || value.kind == SPW_CT_TUPLE;
}

struct spw_ct_value spw_ct_arithmetic(struct spw_ct_run *run, enum spw_ct_operator operation,
                                      struct spw_ct_value a, struct spw_ct_value b)
{
    int64_t left = 0;
    int64_t right = 0;
    if (run->failed)
        return spw_ct_none();
    if (a.kind == SPW_CT_STRING && operation == SPW_CT_MODULO)
        return spw_ct_percent(run, a, b);
    if (a.kind == SPW_CT_UNDEFINED || b.kind == SPW_CT_UNDEFINED)
        return spw_ct_fail_undefined(run, a.kind == SPW_CT_UNDEFINED ? a : b);
    bool left_whole = spw_ct_is_integral(a, &left);
    bool whole = spw_ct_is_integral(b, &right) && left_whole;
    if (whole && operation == SPW_CT_DIVIDE && right == 0)
        return spw_ct_fail(run, "ZeroDivisionError", "division by zero");
    if (whole && operation != SPW_CT_DIVIDE && !(operation == SPW_CT_POWER && right < 0))
        return arithmetic_int(run, operation, left, right);
    if (spw_ct_is_number(a) && spw_ct_is_number(b))
        return arithmetic_float(run, operation, spw_ct_real(a), spw_ct_real(b));
    if (operation == SPW_CT_ADD && is_sequence(a)) {
        if (a.kind == b.kind)
            return concatenate(run, a, b);
        return spw_ct_fail(run, "TypeError", "can only concatenate %s (not \"%s\") to %s",
                           spw_ct_type_name(a), spw_ct_type_name(b), spw_ct_type_name(a));
    }
    if (operation == SPW_CT_MULTIPLY && (is_sequence(a) || is_sequence(b))) {
        struct spw_ct_value times = is_sequence(a) ? b : a;
        if (spw_ct_is_integral(times, &right))
            return repeat(run, is_sequence(a) ? a : b, right);
        return spw_ct_fail(run, "TypeError", "can't multiply sequence by non-int of type '%s'",
                           spw_ct_type_name(times));
    }
    return spw_ct_fail(run, "TypeError", "unsupported operand type(s) for %s: '%s' and '%s'",
                       operator_text(operation), spw_ct_type_name(a), spw_ct_type_name(b));
}

struct spw_ct_value spw_ct_negate(struct spw_ct_run *run, struct spw_ct_value value, bool negative)
{
    int64_t integer = 0;
    if (run->failed)
        return value;
    if (value.kind == SPW_CT_FLOAT)
        return spw_ct_float(negative ? -value.real : value.real);
    if (value.kind == SPW_CT_UNDEFINED)
        return spw_ct_fail_undefined(run, value);
    if (!spw_ct_is_integral(value, &integer))
        return spw_ct_fail(run, "TypeError", "bad operand type for unary %c: '%s'",
                           negative ? '-' : '+', spw_ct_type_name(value));
    if (negative && integer == INT64_MIN)
        return too_big(run);
    return spw_ct_int(negative ? -integer : integer);
}

/* The number without "_" between digits and white space around, or false. */
static bool clean(struct spw_ct_value text, char *out, size_t size)
{
    text = spw_ct_strip(text, NULL, true, true);
    size_t used = 0;
    for (size_t i = 0; i < text.bytes; i++) {
        char c = text.text[i];
        bool between = i > 0 && i + 1 < text.bytes && text.text[i - 1] != '_' &&
                       text.text[i + 1] != '_' && text.text[i - 1] != '-' &&
                       text.text[i - 1] != '+' && text.text[i - 1] != '.' &&
                       text.text[i + 1] != '.';
        if (c == '_' && between)
            continue;
        if (used + 1 >= size || c == '_' || c == '\0')
            return false;
        out[used++] = c;
    }
    out[used] = '\0';
    return used > 0;
}

bool spw_ct_parse_int(struct spw_ct_value text, int base, int64_t *out)
{
    char digits[128];
    if (!clean(text, digits, sizeof(digits)))
        return false;
    char *start = digits + (digits[0] == '-' || digits[0] == '+');
    if (start[0] == '0' && start[1] != '\0') {
        char letter = (char)(start[1] | 32);
        int prefix = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
        if (prefix && (base == 0 || base == prefix)) {
            memmove(start, start + 2, strlen(start + 2) + 1);
            base = prefix;
        } else if (base == 0 && strspn(start, "0") != strlen(start)) {
            return false;
        }
    }
    if (base == 0)
        base = 10;
    if (base < 2 || base > 36 || start[0] == '-' || start[0] == '+' || start[0] == '\0' ||
        start[0] == ' ' || (base == 16 && start[0] == '0' && (start[1] | 32) == 'x'))
        return false;
    errno = 0;
    char *end = NULL;
    long long value = strtoll(digits, &end, base);
    *out = value;
    return errno == 0 && *end == '\0';
}

bool spw_ct_parse_float(struct spw_ct_value text, double *out)
{
    char digits[512];
    if (!clean(text, digits, sizeof(digits)))
        return false;
    const char *start = digits + (digits[0] == '-' || digits[0] == '+');
    static const char *const words[] = {"inf", "infinity", "nan"};
    bool plain =
        strspn(start, "0123456789.eE+-") == strlen(start) && start[0] != '-' && start[0] != '+';
    for (size_t i = 0; i < SPW_ARRAY_COUNT(words); i++)
        plain = plain || strcasecmp(start, words[i]) == 0;
    char *end = NULL;
    *out = strtod(digits, &end);
    return plain && *end == '\0';
}

struct spw_ct_value spw_ct_round(struct spw_ct_run *run, struct spw_ct_value value,
                                 struct spw_ct_value digits)
{
    int64_t places = 0;
    int64_t integer = 0;
    if (!spw_ct_is_integral(digits, &places) || places < -30 || places > 300)
        return spw_ct_fail(run, "TypeError", "round needs an integer of digits");
    if (spw_ct_is_integral(value, &integer)) {
        int64_t unit = 1;
        for (; places < 0; places++)
            if (__builtin_mul_overflow(unit, 10, &unit))
                return spw_ct_int(0);
        int64_t rest = integer % unit;
        int64_t magnitude = rest < 0 ? -rest : rest;
        integer -= rest;
        bool odd = (integer / unit) % 2 != 0;
        if (unit > 1 && (magnitude > unit / 2 || (magnitude == unit / 2 && odd)) &&
            __builtin_add_overflow(integer, rest < 0 ? -unit : unit, &integer))
            return too_big(run);
        return spw_ct_int(integer);
    }
    if (value.kind != SPW_CT_FLOAT)
        return spw_ct_fail(run, "TypeError", "type %s doesn't define __round__ method",
                           spw_ct_type_name(value));
    if (!isfinite(value.real))
        return value;
    if (places < 0) {
        double unit = pow(10, (double)-places);
        return spw_ct_float(rint(value.real / unit) * unit);
    }
    char text[700];
    snprintf(text, sizeof(text), "%.*f", (int)places, value.real);
    return spw_ct_float(strtod(text, NULL));
}
