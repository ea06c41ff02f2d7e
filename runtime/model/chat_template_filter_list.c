/* Filters on what can be walked: map, select, sort, join and the like. */
#include "runtime/model/chat_template_int.h"

#include <string.h>

#define FN(name)                                                                                   \
    static struct spw_ct_value name(struct spw_ct_run *run, struct spw_ct_value self,              \
                                    const struct spw_ct_args *args)

/* item.a.0.b for "a.0.b"; an integer is an index; default_value (or MISSING) for what is not there.
 */
static struct spw_ct_value get_path(struct spw_ct_run *run, struct spw_ct_value item,
                                    struct spw_ct_value path, struct spw_ct_value default_value)
{
    bool use_default = default_value.kind != SPW_CT_MISSING && default_value.kind != SPW_CT_NONE;
    if (path.kind == SPW_CT_NONE || path.kind == SPW_CT_MISSING)
        return item;
    size_t start = 0;
    bool more = true;
    while (more && !run->failed) {
        struct spw_ct_value part = path;
        more = false;
        if (path.kind == SPW_CT_STRING) {
            int64_t number = 0;
            size_t end = start;
            more = spw_ct_find(path, spw_ct_word("."), start, &end);
            if (!more)
                end = path.bytes;
            part = spw_ct_text(path.text + start, end - start);
            size_t digits = 0;
            while (digits < part.bytes && part.text[digits] >= '0' && part.text[digits] <= '9')
                digits++;
            if (digits && digits == part.bytes && spw_ct_parse_int(part, 10, &number))
                part = spw_ct_int(number);
            start = end + 1;
        }
        item = spw_ct_item(run, item, part);
        if (use_default && item.kind == SPW_CT_UNDEFINED)
            item = default_value;
    }
    return item;
}

static struct spw_ct_value fold(struct spw_ct_run *run, struct spw_ct_value value,
                                bool case_sensitive)
{
    if (case_sensitive || value.kind != SPW_CT_STRING)
        return value;
    return spw_ct_convert(run, value, SPW_CT_CASE_LOWER);
}

/* Stable merge sort of `items` by `keys`, which move along. */
static void sort_by(struct spw_ct_run *run, struct spw_ct_value *items, struct spw_ct_value *keys,
                    size_t count, bool reverse)
{
    struct spw_ct_value *spare = spw_ct_take(run, (count ? count : 1) * 2 * sizeof(*spare));
    for (size_t width = 1; width < count && !run->failed; width *= 2) {
        for (size_t low = 0; low < count; low += 2 * width) {
            size_t middle = SPW_MIN(low + width, count);
            size_t high = SPW_MIN(low + 2 * width, count);
            size_t left = low;
            size_t right = middle;
            for (size_t to = low; to < high; to++) {
                bool from_right = left == middle;
                if (!from_right && right < high) {
                    int order = reverse ? spw_ct_compare(run, keys[left], keys[right], "<")
                                        : spw_ct_compare(run, keys[right], keys[left], "<");
                    from_right = order < 0;
                }
                size_t from = from_right ? right++ : left++;
                spare[to] = items[from];
                spare[count + to] = keys[from];
            }
        }
        memcpy(items, spare, count * sizeof(*items));
        memcpy(keys, spare + count, count * sizeof(*keys));
    }
}

static struct spw_ct_list *copy_list(struct spw_ct_run *run, const struct spw_ct_list *list)
{
    struct spw_ct_list *copy = list ? spw_ct_list_new(run, list->count) : NULL;
    for (size_t i = 0; copy && i < list->count; i++)
        spw_ct_list_add(run, copy, list->items[i]);
    return run->failed ? NULL : copy;
}

/* The list sorted by an attribute ("a,b": by several). */
static struct spw_ct_list *sorted(struct spw_ct_run *run, struct spw_ct_value value,
                                  struct spw_ct_value attribute, bool case_sensitive, bool reverse,
                                  struct spw_ct_value default_value, bool several)
{
    struct spw_ct_list *items = copy_list(run, spw_ct_iterate(run, value));
    struct spw_ct_list *keys = items ? spw_ct_list_new(run, items->count) : NULL;
    for (size_t i = 0; keys && i < items->count && !run->failed; i++) {
        struct spw_ct_list *parts = NULL;
        size_t at = 0;
        size_t comma = 0;
        if (several && attribute.kind == SPW_CT_STRING)
            parts = spw_ct_list_new(run, 2);
        while (parts && !run->failed) {
            bool more = spw_ct_find(attribute, spw_ct_word(","), at, &comma);
            size_t end = more ? comma : attribute.bytes;
            struct spw_ct_value path = spw_ct_text(attribute.text + at, end - at);
            struct spw_ct_value key = get_path(run, items->items[i], path, default_value);
            spw_ct_list_add(run, parts, fold(run, key, case_sensitive));
            at = end + 1;
            if (!more)
                break;
        }
        if (parts)
            spw_ct_list_add(run, keys, spw_ct_from_list(parts, SPW_CT_LIST));
        else
            spw_ct_list_add(run, keys,
                            fold(run, get_path(run, items->items[i], attribute, default_value),
                                 case_sensitive));
    }
    if (!keys || run->failed)
        return NULL;
    sort_by(run, items->items, keys->items, items->count, reverse);
    return run->failed ? NULL : items;
}

FN(filter_sort)
{
    struct spw_ct_value missing = {0};
    return spw_ct_from_list(sorted(run, self, args->values[2],
                                   spw_ct_arg_truth(args->values[1], false),
                                   spw_ct_arg_truth(args->values[0], false), missing, true),
                            SPW_CT_LIST);
}

FN(filter_dictsort)
{
    bool by_value = args->values[1].kind == SPW_CT_STRING && spw_ct_is(args->values[1], "value");
    if (args->values[1].kind != SPW_CT_MISSING && !by_value &&
        !(args->values[1].kind == SPW_CT_STRING && spw_ct_is(args->values[1], "key")))
        return spw_ct_fail(run, "FilterArgumentError",
                           "You can only sort by either \"key\" or \"value\"");
    if (self.kind == SPW_CT_UNDEFINED)
        return spw_ct_fail_undefined(run, self);
    if (self.kind != SPW_CT_DICT)
        return spw_ct_fail(run, "AttributeError", "'%s' object has no attribute 'items'",
                           spw_ct_type_name(self));
    struct spw_ct_value items = {
        .kind = SPW_CT_VIEW, .extra = SPW_CT_VIEW_ITEMS, .dict = self.dict};
    struct spw_ct_value missing = {0};
    return spw_ct_from_list(sorted(run, items, spw_ct_int(by_value),
                                   spw_ct_arg_truth(args->values[0], false),
                                   spw_ct_arg_truth(args->values[2], false), missing, false),
                            SPW_CT_LIST);
}

FN(filter_unique)
{
    const struct spw_ct_list *list = spw_ct_iterate(run, self);
    struct spw_ct_list *seen = spw_ct_list_new(run, 0);
    struct spw_ct_list *out = spw_ct_list_new(run, 0);
    struct spw_ct_value missing = {0};
    for (size_t i = 0; list && i < list->count && !run->failed; i++) {
        struct spw_ct_value key = get_path(run, list->items[i], args->values[1], missing);
        key = fold(run, key, spw_ct_arg_truth(args->values[0], false));
        bool found = false;
        if (!spw_ct_hashable(key))
            spw_ct_fail(run, "TypeError", "unhashable type: '%s'", spw_ct_type_name(key));
        for (size_t j = 0; seen && j < seen->count && !found && !run->failed; j++)
            found = spw_ct_equal(run, seen->items[j], key);
        if (!found) {
            spw_ct_list_add(run, seen, key);
            spw_ct_list_add(run, out, list->items[i]);
        }
    }
    return spw_ct_iterator(run, run->failed ? NULL : out);
}

static struct spw_ct_value extreme(struct spw_ct_run *run, struct spw_ct_value self,
                                   const struct spw_ct_args *args, bool largest)
{
    const struct spw_ct_list *list = spw_ct_iterate(run, self);
    struct spw_ct_value best_key = spw_ct_none();
    struct spw_ct_value missing = {0};
    size_t best = 0;
    if (list && list->count == 0)
        return spw_ct_undefined_hint(run, "No aggregated item, sequence was empty.");
    for (size_t i = 0; list && i < list->count && !run->failed; i++) {
        struct spw_ct_value key = get_path(run, list->items[i], args->values[1], missing);
        key = fold(run, key, spw_ct_arg_truth(args->values[0], false));
        int order = i == 0 ? 0 : spw_ct_compare(run, key, best_key, largest ? ">" : "<");
        if (i == 0 || order == (largest ? 1 : -1)) {
            best = i;
            best_key = key;
        }
    }
    return run->failed || !list ? spw_ct_none() : list->items[best];
}

FN(filter_min)
{
    return extreme(run, self, args, false);
}

FN(filter_max)
{
    return extreme(run, self, args, true);
}

FN(filter_join)
{
    const struct spw_ct_list *list = spw_ct_iterate(run, self);
    struct spw_ct_value separator =
        args->values[0].kind == SPW_CT_MISSING ? spw_ct_word("") : args->values[0];
    struct spw_ct_value attribute = args->values[1];
    if (attribute.kind != SPW_CT_MISSING && attribute.kind != SPW_CT_NONE) {
        struct spw_ct_list *picked = list ? spw_ct_list_new(run, list->count) : NULL;
        struct spw_ct_value missing = {0};
        for (size_t i = 0; picked && i < list->count && !run->failed; i++)
            spw_ct_list_add(run, picked, get_path(run, list->items[i], attribute, missing));
        list = run->failed ? NULL : picked;
    }
    return spw_ct_join(run, spw_ct_string(run, separator), list);
}

FN(filter_first)
{
    (void)args;
    if (self.kind == SPW_CT_ITERATOR && self.iterator->at < self.iterator->items->count)
        return self.iterator->items->items[self.iterator->at++];
    const struct spw_ct_list *list = spw_ct_iterate(run, self);
    if (!list)
        return spw_ct_none();
    return list->count ? list->items[0]
                       : spw_ct_undefined_hint(run, "No first item, sequence was empty.");
}

static bool reversible(struct spw_ct_value value)
{
    return spw_ct_iterable(value) && value.kind != SPW_CT_ITERATOR;
}

FN(filter_last)
{
    (void)args;
    if (!reversible(self))
        return spw_ct_fail(run, "TypeError", "'%s' object is not reversible",
                           spw_ct_type_name(self));
    const struct spw_ct_list *list = spw_ct_iterate(run, self);
    if (!list)
        return spw_ct_none();
    return list->count ? list->items[list->count - 1]
                       : spw_ct_undefined_hint(run, "No last item, sequence was empty.");
}

FN(filter_list)
{
    (void)args;
    return spw_ct_from_list(copy_list(run, spw_ct_iterate(run, self)), SPW_CT_LIST);
}

FN(filter_items)
{
    (void)args;
    if (self.kind == SPW_CT_UNDEFINED)
        return spw_ct_iterator(run, spw_ct_list_new(run, 0));
    if (self.kind != SPW_CT_DICT)
        return spw_ct_fail(run, "TypeError", "Can only get item pairs from a mapping.");
    struct spw_ct_value items = {
        .kind = SPW_CT_VIEW, .extra = SPW_CT_VIEW_ITEMS, .dict = self.dict};
    return spw_ct_iterator(run, spw_ct_iterate(run, items));
}

FN(filter_reverse)
{
    (void)args;
    struct spw_ct_value bounds[3] = {spw_ct_none(), spw_ct_none(), spw_ct_int(-1)};
    if (self.kind == SPW_CT_STRING)
        return spw_ct_slice(run, self, bounds);
    if (!spw_ct_iterable(self))
        return spw_ct_fail(run, "FilterArgumentError", "argument must be iterable");
    struct spw_ct_value list = spw_ct_from_list(spw_ct_iterate(run, self), SPW_CT_LIST);
    list = spw_ct_slice(run, list, bounds);
    if (run->failed || !reversible(self))
        return list;
    return spw_ct_iterator(run, list.list);
}

FN(filter_sum)
{
    const struct spw_ct_list *list = spw_ct_iterate(run, self);
    struct spw_ct_value missing = {0};
    struct spw_ct_value total =
        args->values[1].kind == SPW_CT_MISSING ? spw_ct_int(0) : args->values[1];
    if (total.kind == SPW_CT_STRING)
        return spw_ct_fail(run, "TypeError", "sum() can't sum strings [use ''.join(seq) instead]");
    for (size_t i = 0; list && i < list->count && !run->failed; i++)
        total = spw_ct_arithmetic(run, SPW_CT_ADD, total,
                                  get_path(run, list->items[i], args->values[0], missing));
    return total;
}

FN(filter_batch)
{
    const struct spw_ct_list *list = spw_ct_iterate(run, self);
    int64_t count = spw_ct_arg_int(run, args->values[0], 0);
    struct spw_ct_value fill = args->values[1];
    struct spw_ct_list *out = spw_ct_list_new(run, 0);
    struct spw_ct_list *row = NULL;
    for (size_t i = 0; list && i < list->count && !run->failed; i++) {
        if (row && (int64_t)row->count == count) {
            spw_ct_list_add(run, out, spw_ct_from_list(row, SPW_CT_LIST));
            row = NULL;
        }
        if (!row)
            row = spw_ct_list_new(run, 0);
        spw_ct_list_add(run, row, list->items[i]);
    }
    while (row && fill.kind != SPW_CT_MISSING && fill.kind != SPW_CT_NONE && !run->failed &&
           (int64_t)row->count < count)
        spw_ct_list_add(run, row, fill);
    if (row)
        spw_ct_list_add(run, out, spw_ct_from_list(row, SPW_CT_LIST));
    return spw_ct_iterator(run, run->failed ? NULL : out);
}

FN(filter_slice)
{
    const struct spw_ct_list *list = spw_ct_iterate(run, self);
    int64_t slices = spw_ct_arg_int(run, args->values[0], 1);
    struct spw_ct_value fill = args->values[1];
    struct spw_ct_list *out = spw_ct_list_new(run, 0);
    if (slices == 0)
        return spw_ct_fail(run, "ZeroDivisionError", "integer division or modulo by zero");
    size_t at = 0;
    for (int64_t i = 0; list && i < slices && !run->failed; i++) {
        int64_t extra = (int64_t)list->count % slices;
        int64_t count = (int64_t)list->count / slices + (i < extra);
        struct spw_ct_list *row = spw_ct_list_new(run, (size_t)count);
        for (int64_t j = 0; j < count; j++)
            spw_ct_list_add(run, row, list->items[at++]);
        if (i >= extra && fill.kind != SPW_CT_MISSING && fill.kind != SPW_CT_NONE)
            spw_ct_list_add(run, row, fill);
        spw_ct_list_add(run, out, spw_ct_from_list(row, SPW_CT_LIST));
    }
    return spw_ct_iterator(run, run->failed ? NULL : out);
}

FN(filter_groupby)
{
    bool case_sensitive = spw_ct_arg_truth(args->values[2], false);
    struct spw_ct_value path = args->values[0];
    struct spw_ct_list *list =
        sorted(run, self, path, case_sensitive, false, args->values[1], false);
    struct spw_ct_list *out = spw_ct_list_new(run, 0);
    struct spw_ct_list *group = NULL;
    struct spw_ct_value last = spw_ct_none();
    for (size_t i = 0; list && i < list->count && !run->failed; i++) {
        struct spw_ct_value shown = get_path(run, list->items[i], path, args->values[1]);
        struct spw_ct_value key = fold(run, shown, case_sensitive);
        if (!group || !spw_ct_equal(run, key, last)) {
            group = spw_ct_list_new(run, 0);
            spw_ct_list_add(run, out,
                            spw_ct_pair(run, shown, spw_ct_from_list(group, SPW_CT_LIST)));
        }
        last = key;
        spw_ct_list_add(run, group, list->items[i]);
    }
    return spw_ct_from_list(run->failed ? NULL : out, SPW_CT_LIST);
}

static const struct spw_ct_value *named(const struct spw_ct_args *args, const char *name)
{
    for (size_t i = 0; args->named && i < args->named->count; i++)
        if (spw_ct_is(args->named->pairs[i].key, name))
            return &args->named->pairs[i].value;
    return NULL;
}

FN(filter_map)
{
    const struct spw_ct_value *attribute = args->count ? NULL : named(args, "attribute");
    const struct spw_ct_value *fallback = named(args, "default");
    const struct spw_ct_function *filter = NULL;
    struct spw_ct_value missing = {0};
    struct spw_ct_args rest = *args;
    const struct spw_ct_list *list = NULL;
    if (self.kind != SPW_CT_ITERATOR && !spw_ct_truth(self))
        return spw_ct_iterator(run, spw_ct_list_new(run, 0));
    if (!attribute && !args->count)
        return spw_ct_fail(run, "FilterArgumentError", "map requires a filter argument");
    if (!attribute) {
        struct spw_ct_value name = spw_ct_string(run, args->values[0]);
        filter = spw_ct_filter_find(name);
        if (!filter)
            return spw_ct_fail(run, "TemplateRuntimeError", "No filter named '%.*s'.",
                               (int)SPW_MIN(name.bytes, 100u), name.text);
        rest.values++;
        rest.count--;
    }
    list = spw_ct_iterate(run, self);
    struct spw_ct_list *out = spw_ct_list_new(run, list ? list->count : 0);
    for (size_t i = 0; list && i < list->count && !run->failed; i++)
        spw_ct_list_add(
            run, out,
            attribute ? get_path(run, list->items[i], *attribute, fallback ? *fallback : missing)
                      : spw_ct_call_function(run, filter, list->items[i], &rest));
    return spw_ct_iterator(run, run->failed ? NULL : out);
}

static struct spw_ct_value choose(struct spw_ct_run *run, struct spw_ct_value self,
                                  const struct spw_ct_args *args, bool by_attribute, bool keep)
{
    const struct spw_ct_function *test = NULL;
    struct spw_ct_value missing = {0};
    struct spw_ct_args rest = *args;
    if (self.kind != SPW_CT_ITERATOR && !spw_ct_truth(self))
        return spw_ct_iterator(run, spw_ct_list_new(run, 0));
    size_t skip = by_attribute;
    if (args->count < skip)
        return spw_ct_fail(run, "FilterArgumentError", "Missing parameter for attribute name");
    if (args->count > skip) {
        struct spw_ct_value name = spw_ct_string(run, args->values[skip++]);
        test = spw_ct_test_find(name);
        if (!test)
            return spw_ct_fail(run, "TemplateRuntimeError", "No test named '%.*s'.",
                               (int)SPW_MIN(name.bytes, 100u), name.text);
    }
    if (skip)
        rest.values += skip;
    rest.count -= skip;
    const struct spw_ct_list *list = spw_ct_iterate(run, self);
    struct spw_ct_list *out = spw_ct_list_new(run, 0);
    for (size_t i = 0; list && i < list->count && !run->failed; i++) {
        struct spw_ct_value value = list->items[i];
        if (by_attribute)
            value = get_path(run, value, args->values[0], missing);
        if (test)
            value = spw_ct_call_function(run, test, value, &rest);
        if (spw_ct_charge(run, 1) && spw_ct_truth(value) == keep)
            spw_ct_list_add(run, out, list->items[i]);
    }
    return spw_ct_iterator(run, run->failed ? NULL : out);
}

FN(filter_select)
{
    return choose(run, self, args, false, true);
}

FN(filter_reject)
{
    return choose(run, self, args, false, false);
}

FN(filter_selectattr)
{
    return choose(run, self, args, true, true);
}

FN(filter_rejectattr)
{
    return choose(run, self, args, true, false);
}

const struct spw_ct_function spw_ct_list_filters[] = {
    {"sort", filter_sort, "reverse,case_sensitive,attribute", 0},
    {"dictsort", filter_dictsort, "case_sensitive,by,reverse", 0},
    {"unique", filter_unique, "case_sensitive,attribute", 0},
    {"min", filter_min, "case_sensitive,attribute", 0},
    {"max", filter_max, "case_sensitive,attribute", 0},
    {"join", filter_join, "d,attribute", 0},
    {"first", filter_first, "", 0},
    {"last", filter_last, "", 0},
    {"list", filter_list, "", 0},
    {"items", filter_items, "", 0},
    {"reverse", filter_reverse, "", 0},
    {"sum", filter_sum, "attribute,start", 0},
    {"batch", filter_batch, "linecount,fill_with", 1},
    {"slice", filter_slice, "slices,fill_with", 1},
    {"groupby", filter_groupby, "attribute,default,case_sensitive", 1},
    {"map", filter_map, "*", 0},
    {"select", filter_select, "*", 0},
    {"reject", filter_reject, "*", 0},
    {"selectattr", filter_selectattr, "*", 0},
    {"rejectattr", filter_rejectattr, "*", 0},
};

const size_t spw_ct_list_filters_count = SPW_ARRAY_COUNT(spw_ct_list_filters);
