/* Values as Python has them: truth, equality, order, length, walking; lists and dicts. */
#include "runtime/model/chat_template_int.h"

#include <math.h>
#include <string.h>

struct spw_ct_value spw_ct_none(void)
{
    return (struct spw_ct_value){.kind = SPW_CT_NONE};
}

struct spw_ct_value spw_ct_bool(bool truth)
{
    return (struct spw_ct_value){.kind = SPW_CT_BOOL, .truth = truth};
}

struct spw_ct_value spw_ct_int(int64_t integer)
{
    return (struct spw_ct_value){.kind = SPW_CT_INT, .integer = integer};
}

struct spw_ct_value spw_ct_float(double real)
{
    return (struct spw_ct_value){.kind = SPW_CT_FLOAT, .real = real};
}

struct spw_ct_value spw_ct_text(const char *text, size_t bytes)
{
    return (struct spw_ct_value){.kind = SPW_CT_STRING, .text = bytes ? text : "", .bytes = bytes};
}

struct spw_ct_value spw_ct_word(const char *text)
{
    return spw_ct_text(text, strlen(text));
}

struct spw_ct_value spw_ct_copy(struct spw_ct_run *run, const char *text, size_t bytes)
{
    char *copy = bytes ? spw_ct_take(run, bytes) : NULL;
    if (!copy)
        return spw_ct_word("");
    memcpy(copy, text, bytes);
    return spw_ct_text(copy, bytes);
}

struct spw_ct_value spw_ct_undefined(struct spw_ct_run *run, struct spw_ct_value object,
                                     struct spw_ct_value name)
{
    struct spw_ct_undefined *why = spw_ct_take(run, sizeof(*why));
    if (why)
        *why = (struct spw_ct_undefined){.name = name, .object = object};
    return (struct spw_ct_value){.kind = SPW_CT_UNDEFINED, .undefined = why};
}

struct spw_ct_value spw_ct_undefined_hint(struct spw_ct_run *run, const char *hint)
{
    struct spw_ct_undefined *why = spw_ct_take(run, sizeof(*why));
    if (why)
        why->hint = hint;
    return (struct spw_ct_value){.kind = SPW_CT_UNDEFINED, .undefined = why};
}

struct spw_ct_list *spw_ct_list_new(struct spw_ct_run *run, size_t capacity)
{
    struct spw_ct_list *list = spw_ct_take(run, sizeof(*list));
    if (list && capacity) {
        list->items = spw_ct_take(run, capacity * sizeof(*list->items));
        list->capacity = list->items ? capacity : 0;
    }
    return run->failed ? NULL : list;
}

void spw_ct_list_add(struct spw_ct_run *run, struct spw_ct_list *list, struct spw_ct_value value)
{
    if (run->failed || !list)
        return;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 8;
        struct spw_ct_value *items = spw_ct_take(run, capacity * sizeof(*items));
        if (!items)
            return;
        if (list->count)
            memcpy(items, list->items, list->count * sizeof(*items));
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = value;
}

struct spw_ct_value spw_ct_from_list(const struct spw_ct_list *list, enum spw_ct_kind kind)
{
    if (!list)
        return (struct spw_ct_value){.kind = SPW_CT_UNDEFINED};
    return (struct spw_ct_value){.kind = kind, .list = list};
}

struct spw_ct_value spw_ct_iterator(struct spw_ct_run *run, const struct spw_ct_list *list)
{
    struct spw_ct_iterator *iterator = spw_ct_take(run, sizeof(*iterator));
    if (!iterator || !list)
        return (struct spw_ct_value){.kind = SPW_CT_UNDEFINED};
    iterator->items = list;
    return (struct spw_ct_value){.kind = SPW_CT_ITERATOR, .iterator = iterator};
}

struct spw_ct_value spw_ct_pair(struct spw_ct_run *run, struct spw_ct_value a,
                                struct spw_ct_value b)
{
    struct spw_ct_list *pair = spw_ct_list_new(run, 2);
    spw_ct_list_add(run, pair, a);
    spw_ct_list_add(run, pair, b);
    return spw_ct_from_list(pair, SPW_CT_TUPLE);
}

struct spw_ct_dict *spw_ct_dict_new(struct spw_ct_run *run, size_t capacity)
{
    struct spw_ct_dict *dict = spw_ct_take(run, sizeof(*dict));
    if (dict && capacity) {
        dict->pairs = spw_ct_take(run, capacity * sizeof(*dict->pairs));
        dict->capacity = dict->pairs ? capacity : 0;
    }
    return run->failed ? NULL : dict;
}

const struct spw_ct_value *spw_ct_dict_find(struct spw_ct_run *run, const struct spw_ct_dict *dict,
                                            struct spw_ct_value key)
{
    spw_ct_charge(run, dict->count / 32);
    for (size_t i = 0; i < dict->count && !run->failed; i++) {
        const struct spw_ct_pair *pair = &dict->pairs[i];
        if (key.kind == SPW_CT_STRING ? spw_ct_same_text(pair->key, key)
                                      : spw_ct_equal(run, pair->key, key))
            return &pair->value;
    }
    return NULL;
}

void spw_ct_dict_set(struct spw_ct_run *run, struct spw_ct_dict *dict, struct spw_ct_value key,
                     struct spw_ct_value value)
{
    if (run->failed || !dict)
        return;
    const struct spw_ct_value *found = spw_ct_dict_find(run, dict, key);
    for (size_t i = 0; found && i < dict->count; i++) {
        if (found == &dict->pairs[i].value) {
            dict->pairs[i].value = value;
            return;
        }
    }
    if (dict->count == dict->capacity) {
        size_t capacity = dict->capacity ? dict->capacity * 2 : 4;
        struct spw_ct_pair *pairs = spw_ct_take(run, capacity * sizeof(*pairs));
        if (!pairs)
            return;
        if (dict->count)
            memcpy(pairs, dict->pairs, dict->count * sizeof(*pairs));
        dict->pairs = pairs;
        dict->capacity = capacity;
    }
    dict->pairs[dict->count++] = (struct spw_ct_pair){.key = key, .value = value};
}

bool spw_ct_hashable(struct spw_ct_value value)
{
    if (value.kind == SPW_CT_TUPLE) {
        for (size_t i = 0; i < value.list->count; i++)
            if (!spw_ct_hashable(value.list->items[i]))
                return false;
        return true;
    }
    return value.kind != SPW_CT_LIST && value.kind != SPW_CT_DICT && value.kind != SPW_CT_VIEW;
}

bool spw_ct_is(struct spw_ct_value value, const char *text)
{
    return value.bytes == strlen(text) && memcmp(value.text, text, value.bytes) == 0;
}

bool spw_ct_same_text(struct spw_ct_value a, struct spw_ct_value b)
{
    return a.kind == SPW_CT_STRING && b.kind == SPW_CT_STRING && a.bytes == b.bytes &&
           memcmp(a.text, b.text, a.bytes) == 0;
}

bool spw_ct_is_number(struct spw_ct_value value)
{
    return value.kind == SPW_CT_BOOL || value.kind == SPW_CT_INT || value.kind == SPW_CT_FLOAT;
}

bool spw_ct_is_integral(struct spw_ct_value value, int64_t *out)
{
    if (value.kind != SPW_CT_BOOL && value.kind != SPW_CT_INT)
        return false;
    *out = value.kind == SPW_CT_BOOL ? value.truth : value.integer;
    return true;
}

double spw_ct_real(struct spw_ct_value value)
{
    int64_t integer = 0;
    return spw_ct_is_integral(value, &integer) ? (double)integer : value.real;
}

const char *spw_ct_type_name(struct spw_ct_value value)
{
    static const char *const views[] = {"dict_keys", "dict_values", "dict_items"};
    switch (value.kind) {
    case SPW_CT_MISSING:
    case SPW_CT_UNDEFINED:
        return "Undefined";
    case SPW_CT_NONE:
        return "NoneType";
    case SPW_CT_BOOL:
        return "bool";
    case SPW_CT_INT:
        return "int";
    case SPW_CT_FLOAT:
        return "float";
    case SPW_CT_STRING:
        return "str";
    case SPW_CT_LIST:
        return "list";
    case SPW_CT_TUPLE:
        return "tuple";
    case SPW_CT_DICT:
        return "dict";
    case SPW_CT_RANGE:
        return "range";
    case SPW_CT_VIEW:
        return views[value.extra];
    case SPW_CT_ITERATOR:
        return "generator";
    case SPW_CT_NAMESPACE:
        return "Namespace";
    case SPW_CT_MACRO:
        return "Macro";
    case SPW_CT_FUNCTION:
        return "function";
    case SPW_CT_METHOD:
        return "builtin_function_or_method";
    case SPW_CT_LOOP:
        return "LoopContext";
    }
    return "object";
}

bool spw_ct_length(struct spw_ct_value value, int64_t *out)
{
    switch (value.kind) {
    case SPW_CT_UNDEFINED:
        *out = 0;
        return true;
    case SPW_CT_STRING:
        *out = (int64_t)spw_ct_points(value.text, value.bytes);
        return true;
    case SPW_CT_LIST:
    case SPW_CT_TUPLE:
        *out = (int64_t)value.list->count;
        return true;
    case SPW_CT_DICT:
    case SPW_CT_VIEW:
        *out = (int64_t)value.dict->count;
        return true;
    case SPW_CT_RANGE:
        *out = value.range->count;
        return true;
    case SPW_CT_LOOP:
        *out = (int64_t)value.loop->items->count;
        return true;
    default:
        return false;
    }
}

bool spw_ct_truth(struct spw_ct_value value)
{
    int64_t length = 0;
    switch (value.kind) {
    case SPW_CT_NONE:
    case SPW_CT_MISSING:
        return false;
    case SPW_CT_BOOL:
        return value.truth;
    case SPW_CT_INT:
        return value.integer != 0;
    case SPW_CT_FLOAT:
        return value.real != 0;
    case SPW_CT_STRING:
        return value.bytes > 0;
    default:
        return !spw_ct_length(value, &length) || length > 0;
    }
}

static bool equal_lists(struct spw_ct_run *run, const struct spw_ct_list *a,
                        const struct spw_ct_list *b)
{
    if (a->count != b->count)
        return false;
    bool same = true;
    for (size_t i = 0; same && i < a->count; i++)
        same = spw_ct_equal(run, a->items[i], b->items[i]);
    return same;
}

static bool equal_dicts(struct spw_ct_run *run, const struct spw_ct_dict *a,
                        const struct spw_ct_dict *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count && !run->failed; i++) {
        const struct spw_ct_value *other = spw_ct_dict_find(run, b, a->pairs[i].key);
        if (!other || !spw_ct_equal(run, a->pairs[i].value, *other))
            return false;
    }
    return true;
}

bool spw_ct_equal(struct spw_ct_run *run, struct spw_ct_value a, struct spw_ct_value b)
{
    if (!spw_ct_charge(run, 1))
        return false;
    if (spw_ct_is_number(a) && spw_ct_is_number(b)) {
        int64_t left = 0;
        int64_t right = 0;
        if (spw_ct_is_integral(a, &left) && spw_ct_is_integral(b, &right))
            return left == right;
        return spw_ct_real(a) == spw_ct_real(b);
    }
    if (a.kind != b.kind)
        return false;
    bool same;
    switch (a.kind) {
    case SPW_CT_MISSING:
    case SPW_CT_UNDEFINED:
    case SPW_CT_NONE:
        return true;
    case SPW_CT_STRING:
        return spw_ct_same_text(a, b);
    case SPW_CT_LIST:
    case SPW_CT_TUPLE:
    case SPW_CT_DICT:
        if (++run->depth > SPW_CT_DEPTH_MAX)
            spw_ct_fail_size(run, "the depth");
        same = !run->failed && (a.kind == SPW_CT_DICT ? equal_dicts(run, a.dict, b.dict)
                                                      : equal_lists(run, a.list, b.list));
        run->depth--;
        return same;
    case SPW_CT_RANGE:
        return a.range->count == b.range->count &&
               (a.range->count == 0 || (a.range->start == b.range->start &&
                                        (a.range->count == 1 || a.range->step == b.range->step)));
    case SPW_CT_VIEW:
        return a.extra == b.extra && a.extra != SPW_CT_VIEW_VALUES &&
               equal_dicts(run, a.dict, b.dict);
    case SPW_CT_METHOD:
        return a.method->function == b.method->function &&
               spw_ct_equal(run, a.method->self, b.method->self);
    default:
        return a.list == b.list; /* the same object */
    }
}

static int sign_of(int64_t a, int64_t b)
{
    return a < b ? -1 : a > b ? 1 : 0;
}

int spw_ct_compare(struct spw_ct_run *run, struct spw_ct_value a, struct spw_ct_value b,
                   const char *sign)
{
    int64_t left = 0;
    int64_t right = 0;
    if (!spw_ct_charge(run, 1))
        return 0;
    if (spw_ct_is_integral(a, &left) && spw_ct_is_integral(b, &right))
        return sign_of(left, right);
    if (spw_ct_is_number(a) && spw_ct_is_number(b)) {
        double x = spw_ct_real(a);
        double y = spw_ct_real(b);
        return isnan(x) || isnan(y) ? 2 : x < y ? -1 : x > y ? 1 : 0;
    }
    if (a.kind == SPW_CT_STRING && b.kind == SPW_CT_STRING) {
        /* the order of UTF-8 bytes is the order of code points */
        int order = memcmp(a.text, b.text, SPW_MIN(a.bytes, b.bytes));
        return order ? sign_of(order, 0) : sign_of((int64_t)a.bytes, (int64_t)b.bytes);
    }
    if (a.kind == b.kind && (a.kind == SPW_CT_LIST || a.kind == SPW_CT_TUPLE)) {
        int order = 0;
        if (++run->depth > SPW_CT_DEPTH_MAX)
            spw_ct_fail_size(run, "the depth");
        size_t count = SPW_MIN(a.list->count, b.list->count);
        for (size_t i = 0; !run->failed && i < count && order == 0; i++)
            if (!spw_ct_equal(run, a.list->items[i], b.list->items[i]))
                order = spw_ct_compare(run, a.list->items[i], b.list->items[i], sign);
        run->depth--;
        return order ? order : sign_of((int64_t)a.list->count, (int64_t)b.list->count);
    }
    if (a.kind == SPW_CT_UNDEFINED || b.kind == SPW_CT_UNDEFINED)
        spw_ct_fail_undefined(run, a.kind == SPW_CT_UNDEFINED ? a : b);
    else
        spw_ct_fail(run, "TypeError", "'%s' not supported between instances of '%s' and '%s'", sign,
                    spw_ct_type_name(a), spw_ct_type_name(b));
    return 0;
}

bool spw_ct_iterable(struct spw_ct_value value)
{
    switch (value.kind) {
    case SPW_CT_UNDEFINED:
    case SPW_CT_STRING:
    case SPW_CT_LIST:
    case SPW_CT_TUPLE:
    case SPW_CT_DICT:
    case SPW_CT_RANGE:
    case SPW_CT_VIEW:
    case SPW_CT_ITERATOR:
    case SPW_CT_LOOP:
        return true;
    default:
        return false;
    }
}

static void add_dict(struct spw_ct_run *run, struct spw_ct_list *list, struct spw_ct_value value)
{
    enum spw_ct_view view = value.kind == SPW_CT_VIEW ? value.extra : SPW_CT_VIEW_KEYS;
    for (size_t i = 0; i < value.dict->count && !run->failed; i++) {
        const struct spw_ct_pair *pair = &value.dict->pairs[i];
        spw_ct_list_add(run, list,
                        view == SPW_CT_VIEW_KEYS     ? pair->key
                        : view == SPW_CT_VIEW_VALUES ? pair->value
                                                     : spw_ct_pair(run, pair->key, pair->value));
    }
}

static const struct spw_ct_list *iterate_rest(struct spw_ct_run *run,
                                              struct spw_ct_iterator *iterator)
{
    struct spw_ct_list *rest = spw_ct_take(run, sizeof(*rest));
    if (!rest)
        return NULL;
    rest->items = iterator->items->items ? iterator->items->items + iterator->at : NULL;
    rest->count = iterator->items->count - iterator->at;
    iterator->at = iterator->items->count;
    return rest;
}

const struct spw_ct_list *spw_ct_iterate(struct spw_ct_run *run, struct spw_ct_value value)
{
    if (run->failed)
        return NULL;
    if (value.kind == SPW_CT_LIST || value.kind == SPW_CT_TUPLE)
        return value.list;
    if (value.kind == SPW_CT_ITERATOR)
        return iterate_rest(run, value.iterator);
    if (!spw_ct_iterable(value) || value.kind == SPW_CT_LOOP) {
        spw_ct_fail(run, "TypeError", "'%s' object is not iterable", spw_ct_type_name(value));
        return NULL;
    }
    struct spw_ct_list *list = spw_ct_list_new(run, 0);
    if (!list)
        return NULL;
    if (value.kind == SPW_CT_STRING) {
        for (size_t at = 0; at < value.bytes && !run->failed;) {
            size_t start = at;
            spw_ct_point(value.text, value.bytes, &at);
            spw_ct_list_add(run, list, spw_ct_text(value.text + start, at - start));
        }
    } else if (value.kind == SPW_CT_DICT || value.kind == SPW_CT_VIEW) {
        add_dict(run, list, value);
    } else if (value.kind == SPW_CT_RANGE) {
        for (int64_t i = 0; i < value.range->count && !run->failed; i++)
            spw_ct_list_add(run, list, spw_ct_int(value.range->start + i * value.range->step));
    }
    return run->failed ? NULL : list;
}

bool spw_ct_contains(struct spw_ct_run *run, struct spw_ct_value item, struct spw_ct_value in)
{
    if (in.kind == SPW_CT_STRING) {
        size_t at = 0;
        if (item.kind == SPW_CT_STRING)
            return spw_ct_charge(run, in.bytes / 64) && spw_ct_find(in, item, 0, &at);
        spw_ct_fail(run, "TypeError", "'in <string>' requires string as left operand, not %s",
                    spw_ct_type_name(item));
        return false;
    }
    if (in.kind == SPW_CT_DICT || (in.kind == SPW_CT_VIEW && in.extra == SPW_CT_VIEW_KEYS)) {
        if (spw_ct_hashable(item))
            return spw_ct_dict_find(run, in.dict, item) != NULL;
        spw_ct_fail(run, "TypeError", "unhashable type: '%s'", spw_ct_type_name(item));
        return false;
    }
    if (!spw_ct_iterable(in) && !run->failed)
        spw_ct_fail(run, "TypeError", "argument of type '%s' is not iterable",
                    spw_ct_type_name(in));
    if (in.kind == SPW_CT_ITERATOR) {
        struct spw_ct_iterator *iterator = in.iterator;
        while (iterator->at < iterator->items->count && !run->failed)
            if (spw_ct_equal(run, iterator->items->items[iterator->at++], item))
                return true;
        return false;
    }
    const struct spw_ct_list *list = spw_ct_iterate(run, in);
    for (size_t i = 0; list && i < list->count && !run->failed; i++)
        if (spw_ct_equal(run, list->items[i], item))
            return true;
    return false;
}
