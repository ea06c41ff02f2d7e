/* Filters on one value: texts, numbers, JSON. Those on lists are in chat_template_filter_list.c. */
#include "runtime/model/chat_template_int.h"

#include <math.h>
#include <string.h>

#define FN(name)                                                                                   \
    static struct spw_ct_value name(struct spw_ct_run *run, struct spw_ct_value self,              \
                                    const struct spw_ct_args *args)

int64_t spw_ct_arg_int(struct spw_ct_run *run, struct spw_ct_value value, int64_t fallback)
{
    int64_t result = fallback;
    if (value.kind == SPW_CT_UNDEFINED)
        spw_ct_fail_undefined(run, value);
    else if (value.kind != SPW_CT_MISSING && !spw_ct_is_integral(value, &result))
        spw_ct_fail(run, "TypeError", "'%s' object cannot be interpreted as an integer",
                    spw_ct_type_name(value));
    return result;
}

bool spw_ct_arg_truth(struct spw_ct_value value, bool fallback)
{
    return value.kind == SPW_CT_MISSING ? fallback : spw_ct_truth(value);
}

FN(filter_string)
{
    (void)args;
    return spw_ct_string(run, self);
}

FN(filter_upper)
{
    (void)args;
    return spw_ct_convert(run, spw_ct_string(run, self), SPW_CT_CASE_UPPER);
}

FN(filter_lower)
{
    (void)args;
    return spw_ct_convert(run, spw_ct_string(run, self), SPW_CT_CASE_LOWER);
}

FN(filter_capitalize)
{
    (void)args;
    return spw_ct_capitalize(run, spw_ct_string(run, self));
}

/* Words begin after white space, "-" and opening brackets; unlike str.title(). */
FN(filter_title)
{
    (void)args;
    struct spw_ct_value text = spw_ct_string(run, self);
    struct spw_buffer out;
    spw_ct_buffer_init(&out);
    bool first = true;
    for (size_t at = 0; at < text.bytes && !out.failed;) {
        uint32_t point = spw_ct_point(text.text, text.bytes, &at);
        spw_ct_add_case(&out, point, first ? SPW_CT_CASE_UPPER : SPW_CT_CASE_LOWER);
        first = spw_ct_is_space(point) || (point && point < 128 && strchr("-({[<", (int)point));
    }
    return spw_ct_collect(run, &out);
}

FN(filter_trim)
{
    struct spw_ct_value text = spw_ct_string(run, self);
    struct spw_ct_value chars = args->values[0];
    if (chars.kind == SPW_CT_MISSING || chars.kind == SPW_CT_NONE)
        return spw_ct_strip(text, NULL, true, true);
    if (chars.kind != SPW_CT_STRING)
        return spw_ct_fail(run, "TypeError", "strip arg must be None or str");
    return spw_ct_strip(text, &chars, true, true);
}

FN(filter_center)
{
    int64_t width = spw_ct_arg_int(run, args->values[0], 80);
    return spw_ct_pad(run, spw_ct_string(run, self), width, spw_ct_word(" "), 1);
}

FN(filter_replace)
{
    struct spw_ct_value max = args->values[2];
    int64_t count = max.kind == SPW_CT_NONE ? -1 : spw_ct_arg_int(run, max, -1);
    struct spw_ct_value text = spw_ct_string(run, self);
    struct spw_ct_value from = spw_ct_string(run, args->values[0]);
    struct spw_ct_value to = spw_ct_string(run, args->values[1]);
    return run->failed ? text : spw_ct_replace(run, text, from, to, count);
}

FN(filter_indent)
{
    struct spw_ct_value width = args->values[0];
    bool first = spw_ct_arg_truth(args->values[1], false);
    bool blank = spw_ct_arg_truth(args->values[2], false);
    struct spw_ct_value text = self;
    if (width.kind != SPW_CT_STRING)
        width = spw_ct_arithmetic(run, SPW_CT_MULTIPLY, spw_ct_word(" "),
                                  spw_ct_int(spw_ct_arg_int(run, width, 4)));
    if (text.kind == SPW_CT_LIST)
        return spw_ct_fail(run, "AttributeError", "'list' object has no attribute 'splitlines'");
    text = spw_ct_arithmetic(run, SPW_CT_ADD, text, spw_ct_word("\n"));
    if (run->failed)
        return text;
    struct spw_ct_list *lines = spw_ct_split_lines(run, text, false);
    struct spw_buffer out;
    spw_ct_buffer_init(&out);
    for (size_t i = 0; lines && i < lines->count && !out.failed; i++) {
        struct spw_ct_value line = lines->items[i];
        if (i > 0)
            spw_buffer_add(&out, "\n", 1);
        if (i > 0 ? blank || line.bytes : first)
            spw_buffer_add(&out, width.text, width.bytes);
        spw_buffer_add(&out, line.text, line.bytes);
    }
    return spw_ct_collect(run, &out);
}

FN(filter_truncate)
{
    int64_t length = spw_ct_arg_int(run, args->values[0], 255);
    bool kill = spw_ct_arg_truth(args->values[1], false);
    struct spw_ct_value end = args->values[2];
    int64_t leeway =
        args->values[3].kind == SPW_CT_NONE ? 5 : spw_ct_arg_int(run, args->values[3], 5);
    if (end.kind == SPW_CT_MISSING)
        end = spw_ct_word("...");
    int64_t points = 0;
    int64_t end_points = 0;
    if (!spw_ct_length(self, &points) || !spw_ct_length(end, &end_points))
        return spw_ct_fail(run, "TypeError", "object of type '%s' has no len()",
                           spw_ct_type_name(self));
    if (length < end_points || leeway < 0)
        return spw_ct_fail(run, "AssertionError", "expected length >= %lld, got %lld",
                           (long long)end_points, (long long)length);
    if (points - leeway <= length || run->failed)
        return self;
    if (self.kind != SPW_CT_STRING || end.kind != SPW_CT_STRING)
        return spw_ct_fail(run, "TypeError", "truncate needs texts");
    self.bytes = spw_ct_offset(self.text, self.bytes, (size_t)(length - end_points));
    size_t space = 0;
    if (!kill && spw_ct_find_last(self, spw_ct_word(" "), self.bytes, &space))
        self.bytes = space;
    return spw_ct_arithmetic(run, SPW_CT_ADD, self, end);
}

FN(filter_wordcount)
{
    (void)args;
    struct spw_ct_value text = spw_ct_string(run, self);
    int64_t words = 0;
    bool inside = false;
    for (size_t at = 0; at < text.bytes;) {
        uint32_t point = spw_ct_point(text.text, text.bytes, &at);
        bool word = point == '_' || spw_ct_is_alnum(point);
        words += word && !inside;
        inside = word;
    }
    return spw_ct_int(words);
}

FN(filter_escape)
{
    (void)args;
    static const char *const pairs[][2] = {
        {"&", "&amp;"}, {">", "&gt;"}, {"<", "&lt;"}, {"'", "&#39;"}, {"\"", "&#34;"}};
    struct spw_ct_value text = spw_ct_string(run, self);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(pairs); i++)
        text = spw_ct_replace(run, text, spw_ct_word(pairs[i][0]), spw_ct_word(pairs[i][1]), -1);
    return text;
}

static void quote_url(struct spw_buffer *out, struct spw_ct_value text, bool query)
{
    for (size_t i = 0; i < text.bytes && !out->failed; i++) {
        unsigned char c = (unsigned char)text.text[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     (c && strchr("_.-~", c)) || (c == '/' && !query);
        if (plain)
            spw_buffer_add_u8(out, c);
        else if (c == ' ' && query)
            spw_buffer_add_u8(out, '+');
        else
            spw_buffer_format(out, "%%%02X", c);
    }
}

FN(filter_urlencode)
{
    (void)args;
    struct spw_buffer out;
    spw_ct_buffer_init(&out);
    if (self.kind == SPW_CT_STRING || !spw_ct_iterable(self)) {
        quote_url(&out, spw_ct_string(run, self), false);
        return spw_ct_collect(run, &out);
    }
    if (self.kind == SPW_CT_DICT)
        self = (struct spw_ct_value){
            .kind = SPW_CT_VIEW, .extra = SPW_CT_VIEW_ITEMS, .dict = self.dict};
    const struct spw_ct_list *list = spw_ct_iterate(run, self);
    for (size_t i = 0; list && i < list->count && !run->failed; i++) {
        const struct spw_ct_list *pair = spw_ct_iterate(run, list->items[i]);
        if (!pair || pair->count != 2) {
            spw_ct_fail(run, "ValueError", "urlencode needs pairs");
            break;
        }
        if (i > 0)
            spw_buffer_add(&out, "&", 1);
        quote_url(&out, spw_ct_string(run, pair->items[0]), true);
        spw_buffer_add(&out, "=", 1);
        quote_url(&out, spw_ct_string(run, pair->items[1]), true);
    }
    return spw_ct_collect(run, &out);
}

FN(filter_format)
{
    struct spw_ct_value operand = {.kind = SPW_CT_DICT, .dict = args->named};
    if (args->named && args->named->count && args->count)
        return spw_ct_fail(run, "FilterArgumentError",
                           "can't handle positional and keyword arguments at the same time");
    if (!args->named || !args->named->count) {
        struct spw_ct_list *list = spw_ct_list_new(run, args->count);
        for (size_t i = 0; i < args->count; i++)
            spw_ct_list_add(run, list, args->values[i]);
        operand = spw_ct_from_list(list, SPW_CT_TUPLE);
    }
    return spw_ct_percent(run, spw_ct_string(run, self), operand);
}

/* int() and float() of a number or text; false: neither. */
static bool to_float(struct spw_ct_value value, double *out)
{
    if (value.kind == SPW_CT_STRING)
        return spw_ct_parse_float(value, out);
    if (!spw_ct_is_number(value))
        return false;
    *out = spw_ct_real(value);
    return true;
}

FN(filter_int)
{
    int64_t integer = 0;
    double real = 0;
    int64_t base = spw_ct_arg_int(run, args->values[1], 10);
    struct spw_ct_value fallback =
        args->values[0].kind == SPW_CT_MISSING ? spw_ct_int(0) : args->values[0];
    if (self.kind == SPW_CT_UNDEFINED)
        return spw_ct_fail_undefined(run, self);
    if (spw_ct_is_integral(self, &integer) ||
        (self.kind == SPW_CT_STRING && base >= 0 && base <= 36 &&
         spw_ct_parse_int(self, (int)base, &integer)))
        return spw_ct_int(integer);
    if (!to_float(self, &real) || !isfinite(real))
        return fallback;
    if (fabs(real) >= 9.2e18)
        return spw_ct_fail(run, "OverflowError", "integers beyond 64 bits are not supported");
    return spw_ct_int((int64_t)real);
}

FN(filter_float)
{
    double real = 0;
    if (self.kind == SPW_CT_UNDEFINED)
        return spw_ct_fail_undefined(run, self);
    if (to_float(self, &real))
        return spw_ct_float(real);
    return args->values[0].kind == SPW_CT_MISSING ? spw_ct_float(0) : args->values[0];
}

FN(filter_abs)
{
    (void)args;
    int64_t integer = 0;
    if (self.kind == SPW_CT_FLOAT)
        return spw_ct_float(fabs(self.real));
    if (self.kind == SPW_CT_UNDEFINED || !spw_ct_is_integral(self, &integer))
        return spw_ct_fail(run, "TypeError", "bad operand type for abs(): '%s'",
                           spw_ct_type_name(self));
    return spw_ct_negate(run, self, integer < 0);
}

FN(filter_round)
{
    struct spw_ct_value digits = args->values[0];
    struct spw_ct_value method = args->values[1];
    if (digits.kind == SPW_CT_MISSING)
        digits = spw_ct_int(0);
    if (method.kind == SPW_CT_MISSING ||
        (method.kind == SPW_CT_STRING && spw_ct_is(method, "common")))
        return spw_ct_round(run, self, digits);
    bool up = method.kind == SPW_CT_STRING && spw_ct_is(method, "ceil");
    if (!up && !(method.kind == SPW_CT_STRING && spw_ct_is(method, "floor")))
        return spw_ct_fail(run, "FilterArgumentError", "method must be common, ceil or floor");
    struct spw_ct_value scale = spw_ct_arithmetic(run, SPW_CT_POWER, spw_ct_int(10), digits);
    struct spw_ct_value scaled = spw_ct_arithmetic(run, SPW_CT_MULTIPLY, self, scale);
    if (run->failed || !spw_ct_is_number(scaled))
        return spw_ct_fail(run, "TypeError", "must be real number, not %s",
                           spw_ct_type_name(scaled));
    double real = up ? ceil(spw_ct_real(scaled)) : floor(spw_ct_real(scaled));
    return spw_ct_arithmetic(run, SPW_CT_DIVIDE, spw_ct_float(real), scale);
}

FN(filter_default)
{
    (void)run;
    bool boolean = spw_ct_arg_truth(args->values[1], false);
    if (self.kind != SPW_CT_UNDEFINED && !(boolean && !spw_ct_truth(self)))
        return self;
    return args->values[0].kind == SPW_CT_MISSING ? spw_ct_word("") : args->values[0];
}

FN(filter_attr)
{
    struct spw_ct_value name = args->values[0];
    if (name.kind != SPW_CT_STRING)
        return spw_ct_fail(run, "TypeError", "attribute name must be string, not '%s'",
                           spw_ct_type_name(name));
    /* an attribute, never an item */
    if (self.kind == SPW_CT_DICT && !spw_ct_method_find(self, name))
        return spw_ct_undefined(run, self, name);
    return spw_ct_attribute(run, self, name);
}

FN(filter_length)
{
    (void)args;
    int64_t length = 0;
    if (!spw_ct_length(self, &length))
        return spw_ct_fail(run, "TypeError", "object of type '%s' has no len()",
                           spw_ct_type_name(self));
    return spw_ct_int(length);
}

static const struct spw_ct_function filters[] = {
    {"string", filter_string, "", 0},
    {"safe", filter_string, "", 0},
    {"upper", filter_upper, "", 0},
    {"lower", filter_lower, "", 0},
    {"capitalize", filter_capitalize, "", 0},
    {"title", filter_title, "", 0},
    {"trim", filter_trim, "chars", 0},
    {"center", filter_center, "width", 0},
    {"replace", filter_replace, "old,new,count", 2},
    {"indent", filter_indent, "width,first,blank", 0},
    {"truncate", filter_truncate, "length,killwords,end,leeway", 0},
    {"wordcount", filter_wordcount, "", 0},
    {"escape", filter_escape, "", 0},
    {"e", filter_escape, "", 0},
    {"forceescape", filter_escape, "", 0},
    {"urlencode", filter_urlencode, "", 0},
    {"format", filter_format, "*", 0},
    {"int", filter_int, "default,base", 0},
    {"float", filter_float, "default", 0},
    {"abs", filter_abs, "", 0},
    {"round", filter_round, "precision,method", 0},
    {"default", filter_default, "default_value,boolean", 0},
    {"d", filter_default, "default_value,boolean", 0},
    {"attr", filter_attr, "name", 1},
    {"length", filter_length, "", 0},
    {"count", filter_length, "", 0},
    {"tojson", spw_ct_to_json, "ensure_ascii,indent,separators,sort_keys", 0},
    /* known to Jinja, not of use in a prompt */
    {"filesizeformat", NULL, "*", 0},
    {"pprint", NULL, "*", 0},
    {"random", NULL, "*", 0},
    {"striptags", NULL, "*", 0},
    {"urlize", NULL, "*", 0},
    {"wordwrap", NULL, "*", 0},
    {"xmlattr", NULL, "*", 0},
};

const struct spw_ct_function *spw_ct_filter_find(struct spw_ct_value name)
{
    const struct spw_ct_function *row = spw_ct_find_row(filters, SPW_ARRAY_COUNT(filters), name);
    return row ? row : spw_ct_find_row(spw_ct_list_filters, spw_ct_list_filters_count, name);
}
