/* object.name, object[key] and object[a:b:c], with the sandbox's refusals. */
#include "runtime/model/chat_template_int.h"

#include <string.h>

static struct spw_ct_value unsafe(struct spw_ct_run *run, struct spw_ct_value object,
                                  struct spw_ct_value name)
{
    struct spw_ct_undefined *why = spw_ct_take(run, sizeof(*why));
    if (why)
        *why = (struct spw_ct_undefined){.name = name, .object = object, .unsafe = true};
    return (struct spw_ct_value){.kind = SPW_CT_UNDEFINED, .undefined = why};
}

static bool is_one_of(struct spw_ct_value name, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (spw_ct_is(name, words[i]))
            return true;
    return false;
}

/* Methods that would change a list or dict are refused when used. */
static bool changes(struct spw_ct_value object, struct spw_ct_value name)
{
    static const char *const of_list[] = {"append", "clear", "pop",    "reverse",
                                          "insert", "sort",  "extend", "remove"};
    static const char *const of_dict[] = {"clear", "pop", "popitem", "setdefault", "update"};
    if (object.kind == SPW_CT_LIST)
        return is_one_of(name, of_list, SPW_ARRAY_COUNT(of_list));
    return object.kind == SPW_CT_DICT && is_one_of(name, of_dict, SPW_ARRAY_COUNT(of_dict));
}

static bool is_dunder(struct spw_ct_value name)
{
    static const char *const words[] = {
        "__class__", "__dict__", "__doc__",  "__init__", "__len__",    "__eq__",
        "__str__",   "__repr__", "__hash__", "__dir__",  "__module__", "__new__",
        "__iter__",  "__add__",  "__call__", "__self__", "__globals__"};
    return is_one_of(name, words, SPW_ARRAY_COUNT(words));
}

static bool loop_attribute(struct spw_ct_run *run, struct spw_ct_loop *loop,
                           struct spw_ct_value name, struct spw_ct_value *out)
{
    int64_t index = (int64_t)loop->index;
    int64_t count = (int64_t)loop->items->count;
    if (spw_ct_is(name, "index"))
        *out = spw_ct_int(index + 1);
    else if (spw_ct_is(name, "index0"))
        *out = spw_ct_int(index);
    else if (spw_ct_is(name, "revindex"))
        *out = spw_ct_int(count - index);
    else if (spw_ct_is(name, "revindex0"))
        *out = spw_ct_int(count - index - 1);
    else if (spw_ct_is(name, "first"))
        *out = spw_ct_bool(index == 0);
    else if (spw_ct_is(name, "last"))
        *out = spw_ct_bool(index + 1 >= count);
    else if (spw_ct_is(name, "length"))
        *out = spw_ct_int(count);
    else if (spw_ct_is(name, "depth"))
        *out = spw_ct_int((int64_t)loop->depth + 1);
    else if (spw_ct_is(name, "depth0"))
        *out = spw_ct_int((int64_t)loop->depth);
    else if (spw_ct_is(name, "previtem"))
        *out = index > 0 ? loop->items->items[index - 1]
                         : spw_ct_undefined_hint(run, "there is no previous item");
    else if (spw_ct_is(name, "nextitem"))
        *out = index + 1 < count ? loop->items->items[index + 1]
                                 : spw_ct_undefined_hint(run, "there is no next item");
    else
        return false;
    return true;
}

static bool macro_attribute(struct spw_ct_run *run, const struct spw_ct_node *node,
                            struct spw_ct_value name, struct spw_ct_value *out)
{
    if (spw_ct_is(name, "name")) {
        *out = node->value;
    } else if (spw_ct_is(name, "catch_kwargs")) {
        *out = spw_ct_bool(node->uses_kwargs);
    } else if (spw_ct_is(name, "catch_varargs")) {
        *out = spw_ct_bool(node->uses_varargs);
    } else if (spw_ct_is(name, "caller")) {
        *out = spw_ct_bool(node->uses_caller);
    } else if (spw_ct_is(name, "arguments")) {
        struct spw_ct_list *list = spw_ct_list_new(run, node->parameters.count);
        for (size_t i = 0; i < node->parameters.count; i++)
            spw_ct_list_add(run, list, node->parameters.items[i]->value);
        *out = spw_ct_from_list(list, SPW_CT_TUPLE);
    } else {
        return false;
    }
    return true;
}

/* What Python's getattr finds. */
static bool python_attribute(struct spw_ct_run *run, struct spw_ct_value object,
                             struct spw_ct_value name, struct spw_ct_value *out)
{
    if (object.kind == SPW_CT_NAMESPACE) {
        const struct spw_ct_value *found = spw_ct_dict_find(run, object.names, name);
        if (found)
            *out = *found;
        else if (is_dunder(name))
            *out = unsafe(run, object, name);
        return found != NULL || is_dunder(name);
    }
    if (is_dunder(name)) {
        *out = unsafe(run, object, name);
        return true;
    }
    if (object.kind == SPW_CT_LOOP && loop_attribute(run, object.loop, name, out))
        return true;
    if (object.kind == SPW_CT_MACRO && macro_attribute(run, object.macro->node, name, out))
        return true;
    if (object.kind == SPW_CT_RANGE &&
        (spw_ct_is(name, "start") || spw_ct_is(name, "stop") || spw_ct_is(name, "step"))) {
        *out = spw_ct_int(spw_ct_is(name, "start")  ? object.range->start
                          : spw_ct_is(name, "stop") ? object.range->stop
                                                    : object.range->step);
        return true;
    }
    const struct spw_ct_function *function = spw_ct_method_find(object, name);
    if (!function)
        return false;
    if (changes(object, name)) {
        *out = unsafe(run, object, name);
        return true;
    }
    struct spw_ct_method *method = spw_ct_take(run, sizeof(*method));
    if (method)
        *method = (struct spw_ct_method){.function = function, .self = object};
    *out = (struct spw_ct_value){.kind = method ? SPW_CT_METHOD : SPW_CT_NONE, .method = method};
    return true;
}

static bool python_item(struct spw_ct_run *run, struct spw_ct_value object, struct spw_ct_value key,
                        struct spw_ct_value *out)
{
    int64_t index = 0;
    int64_t length = 0;
    if (object.kind == SPW_CT_DICT) {
        const struct spw_ct_value *found =
            spw_ct_hashable(key) ? spw_ct_dict_find(run, object.dict, key) : NULL;
        if (found)
            *out = *found;
        return found != NULL;
    }
    if (!spw_ct_is_integral(key, &index))
        return false;
    if (object.kind != SPW_CT_LIST && object.kind != SPW_CT_TUPLE && object.kind != SPW_CT_STRING &&
        object.kind != SPW_CT_RANGE)
        return false;
    spw_ct_length(object, &length);
    if (index < 0)
        index += length;
    if (index < 0 || index >= length)
        return false;
    if (object.kind == SPW_CT_RANGE) {
        *out = spw_ct_int(object.range->start + index * object.range->step);
    } else if (object.kind == SPW_CT_STRING) {
        spw_ct_charge(run, object.bytes / 64);
        size_t start = spw_ct_offset(object.text, object.bytes, (size_t)index);
        size_t end = start;
        spw_ct_point(object.text, object.bytes, &end);
        *out = spw_ct_text(object.text + start, end - start);
    } else {
        *out = object.list->items[index];
    }
    return true;
}

struct spw_ct_value spw_ct_attribute(struct spw_ct_run *run, struct spw_ct_value object,
                                     struct spw_ct_value name)
{
    struct spw_ct_value result = spw_ct_none();
    if (run->failed)
        return result;
    if (object.kind == SPW_CT_UNDEFINED)
        return spw_ct_fail_undefined(run, object);
    if (python_attribute(run, object, name, &result) || python_item(run, object, name, &result))
        return result;
    return spw_ct_undefined(run, object, name);
}

struct spw_ct_value spw_ct_item(struct spw_ct_run *run, struct spw_ct_value object,
                                struct spw_ct_value key)
{
    struct spw_ct_value result = spw_ct_none();
    if (run->failed)
        return result;
    if (object.kind == SPW_CT_UNDEFINED)
        return spw_ct_fail_undefined(run, object);
    if (python_item(run, object, key, &result))
        return result;
    if (key.kind == SPW_CT_STRING && python_attribute(run, object, key, &result))
        return result;
    return spw_ct_undefined(run, object, key);
}

bool spw_ct_slice_bounds(const struct spw_ct_value bounds[3], int64_t length, int64_t *out_start,
                         int64_t *out_step, int64_t *out_count)
{
    int64_t step = 1;
    if (bounds[2].kind != SPW_CT_NONE)
        spw_ct_is_integral(bounds[2], &step);
    if (step == 0)
        return false;
    step = SPW_MAX(step, -INT64_MAX);
    int64_t lowest = step < 0 ? -1 : 0;
    int64_t highest = step < 0 ? length - 1 : length;
    int64_t ends[2] = {step < 0 ? highest : lowest, step < 0 ? lowest : highest};
    for (int i = 0; i < 2; i++) {
        if (bounds[i].kind == SPW_CT_NONE)
            continue;
        spw_ct_is_integral(bounds[i], &ends[i]);
        if (ends[i] < 0)
            ends[i] = SPW_MAX(ends[i] + length, lowest);
        else
            ends[i] = SPW_MIN(ends[i], highest);
    }
    int64_t span = step > 0 ? ends[1] - ends[0] : ends[0] - ends[1];
    int64_t stride = step > 0 ? step : -step;
    *out_start = ends[0];
    *out_step = step;
    *out_count = span <= 0 ? 0 : (span - 1) / stride + 1;
    return true;
}

static struct spw_ct_value slice_text(struct spw_ct_run *run, struct spw_ct_value text,
                                      int64_t start, int64_t step, int64_t count)
{
    if (count == 0 || !spw_ct_charge(run, text.bytes / 64))
        return spw_ct_word("");
    size_t from = spw_ct_offset(text.text, text.bytes, (size_t)start);
    if (step == 1) {
        size_t bytes = spw_ct_offset(text.text + from, text.bytes - from, (size_t)count);
        return spw_ct_text(text.text + from, bytes);
    }
    struct spw_buffer out;
    spw_ct_buffer_init(&out);
    for (size_t at = from; count > 0; count--) {
        size_t next = at;
        spw_ct_add_point(&out, spw_ct_point(text.text, text.bytes, &next));
        if (count == 1)
            break;
        for (int64_t i = 0; step < 0 && i > step; i--)
            spw_ct_point_before(text.text, &at);
        for (int64_t i = 0; i < step; i++)
            spw_ct_point(text.text, text.bytes, &at);
    }
    return spw_ct_collect(run, &out);
}

struct spw_ct_value spw_ct_slice(struct spw_ct_run *run, struct spw_ct_value object,
                                 const struct spw_ct_value bounds[3])
{
    int64_t length = 0;
    int64_t start = 0;
    int64_t step = 0;
    int64_t count = 0;
    if (run->failed)
        return spw_ct_none();
    if (object.kind == SPW_CT_UNDEFINED)
        return spw_ct_fail_undefined(run, object);
    if (object.kind == SPW_CT_DICT)
        return spw_ct_fail(run, "TypeError", "unhashable type: 'slice'");
    if (object.kind != SPW_CT_LIST && object.kind != SPW_CT_TUPLE && object.kind != SPW_CT_STRING &&
        object.kind != SPW_CT_RANGE)
        return spw_ct_fail(run, "TypeError", "'%s' object is not subscriptable",
                           spw_ct_type_name(object));
    for (int i = 0; i < 3; i++)
        if (bounds[i].kind != SPW_CT_NONE && bounds[i].kind != SPW_CT_INT &&
            bounds[i].kind != SPW_CT_BOOL)
            return spw_ct_fail(
                run, "TypeError",
                "slice indices must be integers or None or have an __index__ method");
    spw_ct_length(object, &length);
    if (!spw_ct_slice_bounds(bounds, length, &start, &step, &count))
        return spw_ct_fail(run, "ValueError", "slice step cannot be zero");
    if (object.kind == SPW_CT_STRING)
        return slice_text(run, object, start, step, count);
    if (object.kind == SPW_CT_RANGE) {
        struct spw_ct_range *range = spw_ct_take(run, sizeof(*range));
        if (!range)
            return spw_ct_none();
        range->start = object.range->start + start * object.range->step;
        range->step = object.range->step * step;
        range->count = count;
        range->stop = range->start + count * range->step;
        return (struct spw_ct_value){.kind = SPW_CT_RANGE, .range = range};
    }
    bool shared = step == 1 && count > 0; /* lists do not change: the slice is a view */
    struct spw_ct_list *list = spw_ct_list_new(run, shared ? 0 : (size_t)count);
    if (list && shared)
        *list = (struct spw_ct_list){
            .items = object.list->items + start, .count = (size_t)count, .capacity = (size_t)count};
    for (int64_t i = 0; !shared && i < count && !run->failed; i++)
        spw_ct_list_add(run, list, object.list->items[start + i * step]);
    return spw_ct_from_list(list, object.kind);
}
