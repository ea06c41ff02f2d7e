/* The methods of str, dict, list and the like. Those that Python has and this does not are named
 * too: they exist for "is defined", and calling one says that it is not supported.
 */
#include "runtime/model/chat_template_int.h"

#include <string.h>

#define FN(name)                                                                                   \
    static struct spw_ct_value name(struct spw_ct_run *run, struct spw_ct_value self,              \
                                    const struct spw_ct_args *args)

/* An optional text: NULL when missing or None; anything else than a text fails. */
static const struct spw_ct_value *text_or_none(struct spw_ct_run *run,
                                               const struct spw_ct_value *value)
{
    if (value->kind == SPW_CT_MISSING || value->kind == SPW_CT_NONE)
        return NULL;
    if (value->kind != SPW_CT_STRING)
        spw_ct_fail(run, "TypeError", "must be str or None, not %s", spw_ct_type_name(*value));
    return value;
}

static bool want_text(struct spw_ct_run *run, struct spw_ct_value value)
{
    if (value.kind != SPW_CT_STRING)
        spw_ct_fail(run, "TypeError", "must be str, not %s", spw_ct_type_name(value));
    return !run->failed;
}

static struct spw_ct_value strip(struct spw_ct_run *run, struct spw_ct_value self,
                                 const struct spw_ct_args *args, bool left, bool right)
{
    const struct spw_ct_value *chars = text_or_none(run, &args->values[0]);
    return run->failed ? self : spw_ct_strip(self, chars, left, right);
}

FN(str_strip)
{
    return strip(run, self, args, true, true);
}

FN(str_lstrip)
{
    return strip(run, self, args, true, false);
}

FN(str_rstrip)
{
    return strip(run, self, args, false, true);
}

static struct spw_ct_value split(struct spw_ct_run *run, struct spw_ct_value self,
                                 const struct spw_ct_args *args, bool from_right)
{
    const struct spw_ct_value *separator = text_or_none(run, &args->values[0]);
    int64_t max = spw_ct_arg_int(run, args->values[1], -1);
    if (!run->failed && separator && separator->bytes == 0)
        spw_ct_fail(run, "ValueError", "empty separator");
    if (run->failed)
        return self;
    return spw_ct_from_list(spw_ct_split(run, self, separator, max, from_right), SPW_CT_LIST);
}

FN(str_split)
{
    return split(run, self, args, false);
}

FN(str_rsplit)
{
    return split(run, self, args, true);
}

FN(str_splitlines)
{
    bool keep = spw_ct_arg_truth(args->values[0], false);
    return spw_ct_from_list(spw_ct_split_lines(run, self, keep), SPW_CT_LIST);
}

/* Cut self to [start:end] as the optional arguments say; *out_from: code points before it. */
static struct spw_ct_value cut(struct spw_ct_run *run, struct spw_ct_value self,
                               const struct spw_ct_value *start, int64_t *out_from, bool *out_valid)
{
    struct spw_ct_value bounds[3] = {start[0], start[1], spw_ct_none()};
    int64_t step = 0;
    int64_t count = 0;
    int64_t length = (int64_t)spw_ct_points(self.text, self.bytes);
    for (int i = 0; i < 2; i++)
        if (bounds[i].kind != SPW_CT_INT)
            bounds[i] = spw_ct_none();
    *out_valid = !(bounds[0].kind == SPW_CT_INT && bounds[0].integer > length);
    spw_ct_slice_bounds(bounds, length, out_from, &step, &count);
    return spw_ct_slice(run, self, bounds);
}

static struct spw_ct_value matches(struct spw_ct_run *run, struct spw_ct_value self,
                                   const struct spw_ct_args *args, bool at_end)
{
    struct spw_ct_value one = args->values[0];
    struct spw_ct_list single = {.items = &one, .count = 1};
    const struct spw_ct_list *options = one.kind == SPW_CT_TUPLE ? one.list : &single;
    int64_t from = 0;
    bool valid = false;
    self = cut(run, self, args->values + 1, &from, &valid);
    for (size_t i = 0; i < options->count && !run->failed; i++) {
        struct spw_ct_value option = options->items[i];
        if (option.kind != SPW_CT_STRING)
            return spw_ct_fail(run, "TypeError",
                               "%s first arg must be str or a tuple of str, not %s",
                               at_end ? "endswith" : "startswith", spw_ct_type_name(option));
        if (valid && option.bytes <= self.bytes &&
            memcmp(self.text + (at_end ? self.bytes - option.bytes : 0), option.text,
                   option.bytes) == 0)
            return spw_ct_bool(true);
    }
    return spw_ct_bool(false);
}

FN(str_startswith)
{
    return matches(run, self, args, false);
}

FN(str_endswith)
{
    return matches(run, self, args, true);
}

static int64_t locate(struct spw_ct_run *run, struct spw_ct_value self,
                      const struct spw_ct_args *args, bool last)
{
    int64_t from = 0;
    bool valid = false;
    size_t at = 0;
    struct spw_ct_value part = args->values[0];
    self = cut(run, self, args->values + 1, &from, &valid);
    if (!want_text(run, part) || !valid)
        return -1;
    if (last ? !spw_ct_find_last(self, part, self.bytes, &at) : !spw_ct_find(self, part, 0, &at))
        return -1;
    return from + (int64_t)spw_ct_points(self.text, at);
}

FN(str_find)
{
    return spw_ct_int(locate(run, self, args, false));
}

FN(str_rfind)
{
    return spw_ct_int(locate(run, self, args, true));
}

static struct spw_ct_value found_or_fail(struct spw_ct_run *run, int64_t index)
{
    return index < 0 ? spw_ct_fail(run, "ValueError", "substring not found") : spw_ct_int(index);
}

FN(str_index)
{
    return found_or_fail(run, locate(run, self, args, false));
}

FN(str_rindex)
{
    return found_or_fail(run, locate(run, self, args, true));
}

FN(str_count)
{
    int64_t from = 0;
    int64_t count = 0;
    bool valid = false;
    struct spw_ct_value part = args->values[0];
    self = cut(run, self, args->values + 1, &from, &valid);
    if (!want_text(run, part) || !valid)
        return spw_ct_int(0);
    if (part.bytes == 0)
        return spw_ct_int((int64_t)spw_ct_points(self.text, self.bytes) + 1);
    for (size_t at = 0; spw_ct_find(self, part, at, &at); at += part.bytes)
        count++;
    return spw_ct_int(count);
}

FN(str_replace)
{
    int64_t max = spw_ct_arg_int(run, args->values[2], -1);
    if (!want_text(run, args->values[0]) || !want_text(run, args->values[1]))
        return self;
    return spw_ct_replace(run, self, args->values[0], args->values[1], max);
}

FN(str_upper)
{
    (void)args;
    return spw_ct_convert(run, self, SPW_CT_CASE_UPPER);
}

FN(str_lower)
{
    (void)args;
    return spw_ct_convert(run, self, SPW_CT_CASE_LOWER);
}

FN(str_title)
{
    (void)args;
    return spw_ct_convert(run, self, SPW_CT_CASE_TITLE);
}

FN(str_capitalize)
{
    (void)args;
    return spw_ct_capitalize(run, self);
}

FN(str_join)
{
    const struct spw_ct_list *list = spw_ct_iterate(run, args->values[0]);
    for (size_t i = 0; list && i < list->count; i++)
        if (list->items[i].kind != SPW_CT_STRING)
            return spw_ct_fail(run, "TypeError",
                               "sequence item %zu: expected str instance, %s found", i,
                               spw_ct_type_name(list->items[i]));
    return spw_ct_join(run, self, list);
}

static struct spw_ct_value pad(struct spw_ct_run *run, struct spw_ct_value self,
                               const struct spw_ct_args *args, int left)
{
    int64_t width = spw_ct_arg_int(run, args->values[0], 0);
    struct spw_ct_value fill = args->values[1];
    if (fill.kind == SPW_CT_MISSING)
        fill = spw_ct_word(" ");
    if (fill.kind != SPW_CT_STRING || spw_ct_points(fill.text, fill.bytes) != 1)
        return spw_ct_fail(run, "TypeError",
                           "The fill character must be exactly one character long");
    return spw_ct_pad(run, self, width, fill, left);
}

FN(str_center)
{
    return pad(run, self, args, 1);
}

FN(str_ljust)
{
    return pad(run, self, args, 0);
}

FN(str_rjust)
{
    return pad(run, self, args, 2);
}

FN(str_zfill)
{
    int64_t width = spw_ct_arg_int(run, args->values[0], 0);
    bool sign = self.bytes && (self.text[0] == '-' || self.text[0] == '+');
    struct spw_ct_value digits = spw_ct_text(self.text + sign, self.bytes - sign);
    digits = spw_ct_pad(run, digits, width - sign, spw_ct_word("0"), 2);
    return spw_ct_arithmetic(run, SPW_CT_ADD, spw_ct_text(self.text, sign), digits);
}

FN(str_removeprefix)
{
    struct spw_ct_value part = args->values[0];
    if (!want_text(run, part) || part.bytes > self.bytes ||
        memcmp(self.text, part.text, part.bytes) != 0)
        return self;
    return spw_ct_text(self.text + part.bytes, self.bytes - part.bytes);
}

FN(str_removesuffix)
{
    struct spw_ct_value part = args->values[0];
    if (!want_text(run, part) || part.bytes > self.bytes ||
        memcmp(self.text + self.bytes - part.bytes, part.text, part.bytes) != 0)
        return self;
    return spw_ct_text(self.text, self.bytes - part.bytes);
}

static struct spw_ct_value partition(struct spw_ct_run *run, struct spw_ct_value self,
                                     struct spw_ct_value part, bool last)
{
    struct spw_ct_value empty = spw_ct_word("");
    struct spw_ct_list *list = spw_ct_list_new(run, 3);
    size_t at = 0;
    if (!want_text(run, part))
        return self;
    if (part.bytes == 0)
        return spw_ct_fail(run, "ValueError", "empty separator");
    bool found =
        last ? spw_ct_find_last(self, part, self.bytes, &at) : spw_ct_find(self, part, 0, &at);
    size_t end = at + part.bytes;
    spw_ct_list_add(run, list, found ? spw_ct_text(self.text, at) : last ? empty : self);
    spw_ct_list_add(run, list, found ? part : empty);
    spw_ct_list_add(run, list,
                    found  ? spw_ct_text(self.text + end, self.bytes - end)
                    : last ? self
                           : empty);
    return spw_ct_from_list(list, SPW_CT_TUPLE);
}

FN(str_partition)
{
    return partition(run, self, args->values[0], false);
}

FN(str_rpartition)
{
    return partition(run, self, args->values[0], true);
}

/* Every character passes, and there is one. */
static struct spw_ct_value all(struct spw_ct_value self, bool (*passes)(uint32_t))
{
    for (size_t at = 0; at < self.bytes;)
        if (!passes(spw_ct_point(self.text, self.bytes, &at)))
            return spw_ct_bool(false);
    return spw_ct_bool(self.bytes > 0);
}

#define ALL(name, passes)                                                                          \
    FN(name)                                                                                       \
    {                                                                                              \
        (void)run;                                                                                 \
        (void)args;                                                                                \
        return all(self, passes);                                                                  \
    }

ALL(str_isalpha, spw_ct_is_alpha)
ALL(str_isalnum, spw_ct_is_alnum)
ALL(str_isdecimal, spw_ct_is_decimal)
ALL(str_isdigit, spw_ct_is_digit)
ALL(str_isnumeric, spw_ct_is_numeric)
ALL(str_isspace, spw_ct_is_space)

FN(str_isascii)
{
    (void)run;
    (void)args;
    return spw_ct_bool(spw_ct_points(self.text, self.bytes) == self.bytes);
}

static struct spw_ct_value one_case(struct spw_ct_value self, bool (*wanted)(uint32_t),
                                    bool (*other)(uint32_t))
{
    bool any = false;
    for (size_t at = 0; at < self.bytes;) {
        uint32_t point = spw_ct_point(self.text, self.bytes, &at);
        if (other(point))
            return spw_ct_bool(false);
        any = any || wanted(point);
    }
    return spw_ct_bool(any);
}

FN(str_islower)
{
    (void)run;
    (void)args;
    return one_case(self, spw_ct_is_lower, spw_ct_is_upper);
}

FN(str_isupper)
{
    (void)run;
    (void)args;
    return one_case(self, spw_ct_is_upper, spw_ct_is_lower);
}

FN(str_format)
{
    return spw_ct_format(run, self, args);
}

static struct spw_ct_value view(struct spw_ct_value self, enum spw_ct_view of)
{
    return (struct spw_ct_value){.kind = SPW_CT_VIEW, .extra = of, .dict = self.dict};
}

FN(dict_keys)
{
    (void)run;
    (void)args;
    return view(self, SPW_CT_VIEW_KEYS);
}

FN(dict_values)
{
    (void)run;
    (void)args;
    return view(self, SPW_CT_VIEW_VALUES);
}

FN(dict_items)
{
    (void)run;
    (void)args;
    return view(self, SPW_CT_VIEW_ITEMS);
}

FN(dict_get)
{
    if (!spw_ct_hashable(args->values[0]))
        return spw_ct_fail(run, "TypeError", "unhashable type: '%s'",
                           spw_ct_type_name(args->values[0]));
    const struct spw_ct_value *found = spw_ct_dict_find(run, self.dict, args->values[0]);
    if (found)
        return *found;
    return args->values[1].kind == SPW_CT_MISSING ? spw_ct_none() : args->values[1];
}

FN(any_copy)
{
    (void)run;
    (void)args;
    return self;
}

FN(list_index)
{
    const struct spw_ct_list *list = spw_ct_iterate(run, self);
    for (size_t i = 0; list && i < list->count && !run->failed; i++)
        if (spw_ct_equal(run, list->items[i], args->values[0]))
            return spw_ct_int((int64_t)i);
    return spw_ct_fail(run, "ValueError", "value is not in %s", spw_ct_type_name(self));
}

FN(list_count)
{
    int64_t count = 0;
    const struct spw_ct_list *list = spw_ct_iterate(run, self);
    for (size_t i = 0; list && i < list->count && !run->failed; i++)
        count += spw_ct_equal(run, list->items[i], args->values[0]);
    return spw_ct_int(count);
}

FN(loop_cycle)
{
    if (!args->count)
        return spw_ct_fail(run, "TypeError", "no items for cycling given");
    return args->values[self.loop->index % args->count];
}

FN(loop_changed)
{
    struct spw_ct_list *list = spw_ct_list_new(run, args->count);
    for (size_t i = 0; i < args->count; i++)
        spw_ct_list_add(run, list, args->values[i]);
    struct spw_ct_value now = spw_ct_from_list(list, SPW_CT_TUPLE);
    if (run->failed || spw_ct_equal(run, self.loop->changed, now))
        return spw_ct_bool(false);
    self.loop->changed = now;
    return spw_ct_bool(true);
}

static const struct spw_ct_function of_str[] = {
    {"strip", str_strip, "chars", 0},
    {"lstrip", str_lstrip, "chars", 0},
    {"rstrip", str_rstrip, "chars", 0},
    {"split", str_split, "sep,maxsplit", 0},
    {"rsplit", str_rsplit, "sep,maxsplit", 0},
    {"splitlines", str_splitlines, "keepends", 0},
    {"startswith", str_startswith, "prefix,start,end", 1},
    {"endswith", str_endswith, "suffix,start,end", 1},
    {"find", str_find, "sub,start,end", 1},
    {"rfind", str_rfind, "sub,start,end", 1},
    {"index", str_index, "sub,start,end", 1},
    {"rindex", str_rindex, "sub,start,end", 1},
    {"count", str_count, "sub,start,end", 1},
    {"replace", str_replace, "old,new,count", 2},
    {"upper", str_upper, "", 0},
    {"lower", str_lower, "", 0},
    {"title", str_title, "", 0},
    {"capitalize", str_capitalize, "", 0},
    {"join", str_join, "iterable", 1},
    {"center", str_center, "width,fillchar", 1},
    {"ljust", str_ljust, "width,fillchar", 1},
    {"rjust", str_rjust, "width,fillchar", 1},
    {"zfill", str_zfill, "width", 1},
    {"removeprefix", str_removeprefix, "prefix", 1},
    {"removesuffix", str_removesuffix, "suffix", 1},
    {"partition", str_partition, "sep", 1},
    {"rpartition", str_rpartition, "sep", 1},
    {"isalpha", str_isalpha, "", 0},
    {"isalnum", str_isalnum, "", 0},
    {"isdecimal", str_isdecimal, "", 0},
    {"isdigit", str_isdigit, "", 0},
    {"isnumeric", str_isnumeric, "", 0},
    {"isspace", str_isspace, "", 0},
    {"isascii", str_isascii, "", 0},
    {"islower", str_islower, "", 0},
    {"isupper", str_isupper, "", 0},
    {"format", str_format, "*", 0},
    {"casefold", NULL, "*", 0},
    {"encode", NULL, "*", 0},
    {"expandtabs", NULL, "*", 0},
    {"format_map", NULL, "*", 0},
    {"isidentifier", NULL, "*", 0},
    {"isprintable", NULL, "*", 0},
    {"istitle", NULL, "*", 0},
    {"maketrans", NULL, "*", 0},
    {"swapcase", NULL, "*", 0},
    {"translate", NULL, "*", 0},
};

static const struct spw_ct_function of_dict[] = {
    {"keys", dict_keys, "", 0},   {"values", dict_values, "", 0},
    {"items", dict_items, "", 0}, {"get", dict_get, "key,default", 1},
    {"copy", any_copy, "", 0},    {"clear", NULL, "*", 0},
    {"fromkeys", NULL, "*", 0},   {"pop", NULL, "*", 0},
    {"popitem", NULL, "*", 0},    {"setdefault", NULL, "*", 0},
    {"update", NULL, "*", 0},
};

static const struct spw_ct_function of_list[] = {
    {"index", list_index, "value", 1},
    {"count", list_count, "value", 1},
    {"copy", any_copy, "", 0},
    {"append", NULL, "*", 0},
    {"clear", NULL, "*", 0},
    {"extend", NULL, "*", 0},
    {"insert", NULL, "*", 0},
    {"pop", NULL, "*", 0},
    {"remove", NULL, "*", 0},
    {"reverse", NULL, "*", 0},
    {"sort", NULL, "*", 0},
};

static const struct spw_ct_function of_loop[] = {
    {"cycle", loop_cycle, "*", 0},
    {"changed", loop_changed, "*", 0},
};

static const struct spw_ct_function of_int[] = {
    {"as_integer_ratio", NULL, "*", 0},
    {"bit_count", NULL, "*", 0},
    {"bit_length", NULL, "*", 0},
    {"conjugate", NULL, "*", 0},
    {"denominator", NULL, "*", 0},
    {"from_bytes", NULL, "*", 0},
    {"imag", NULL, "*", 0},
    {"numerator", NULL, "*", 0},
    {"real", NULL, "*", 0},
    {"to_bytes", NULL, "*", 0},
};

const struct spw_ct_function *spw_ct_method_find(struct spw_ct_value object,
                                                 struct spw_ct_value name)
{
    switch (object.kind) {
    case SPW_CT_STRING:
        return spw_ct_find_row(of_str, SPW_ARRAY_COUNT(of_str), name);
    case SPW_CT_DICT:
        return spw_ct_find_row(of_dict, SPW_ARRAY_COUNT(of_dict), name);
    case SPW_CT_LIST:
        return spw_ct_find_row(of_list, SPW_ARRAY_COUNT(of_list), name);
    case SPW_CT_TUPLE:
    case SPW_CT_RANGE:
        return spw_ct_find_row(of_list, 2, name); /* index and count */
    case SPW_CT_LOOP:
        return spw_ct_find_row(of_loop, SPW_ARRAY_COUNT(of_loop), name);
    case SPW_CT_BOOL:
    case SPW_CT_INT:
        return spw_ct_find_row(of_int, SPW_ARRAY_COUNT(of_int), name);
    default:
        return NULL;
    }
}
