/* Calling: parameters by position and name, and the functions that every template has. */
#include "runtime/model/chat_template_int.h"

#include <string.h>

#define PARAMETERS_MAX 8

const struct spw_ct_function *spw_ct_find_row(const struct spw_ct_function *rows, size_t count,
                                              struct spw_ct_value name)
{
    for (size_t i = 0; i < count; i++)
        if (spw_ct_is(name, rows[i].name))
            return &rows[i];
    return NULL;
}

/* The index of a name in "one,two,three" (or how many there are, for a name of no bytes). */
static size_t parameter_index(const char *parameters, struct spw_ct_value name)
{
    size_t index = 0;
    while (*parameters) {
        size_t bytes = strcspn(parameters, ",");
        if (spw_ct_same_text(spw_ct_text(parameters, bytes), name))
            break;
        parameters += bytes + (parameters[bytes] == ',');
        index++;
    }
    return index;
}

struct spw_ct_value spw_ct_call_function(struct spw_ct_run *run,
                                         const struct spw_ct_function *function,
                                         struct spw_ct_value self, const struct spw_ct_args *args)
{
    struct spw_ct_value values[PARAMETERS_MAX] = {0};
    if (!spw_ct_charge(run, 1))
        return spw_ct_none();
    if (!function->call)
        return spw_ct_fail(run, "NotImplementedError", "'%s' is not supported in chat templates",
                           function->name);
    if (function->parameters[0] == '*')
        return function->call(run, self, args);
    size_t count = parameter_index(function->parameters, spw_ct_word(""));
    assert(count <= PARAMETERS_MAX);
    if (args->count > count)
        return spw_ct_fail(run, "TypeError", "%s() takes at most %zu arguments (%zu given)",
                           function->name, count, args->count);
    for (size_t i = 0; i < args->count; i++)
        values[i] = args->values[i];
    for (size_t i = 0; args->named && i < args->named->count; i++) {
        struct spw_ct_value name = args->named->pairs[i].key;
        size_t index = parameter_index(function->parameters, name);
        if (index == count)
            return spw_ct_fail(run, "TypeError", "%s() got an unexpected keyword argument '%.*s'",
                               function->name, (int)SPW_MIN(name.bytes, 100u), name.text);
        if (values[index].kind != SPW_CT_MISSING)
            return spw_ct_fail(run, "TypeError", "%s() got multiple values for argument '%.*s'",
                               function->name, (int)name.bytes, name.text);
        values[index] = args->named->pairs[i].value;
    }
    for (size_t i = 0; i < function->required; i++)
        if (values[i].kind == SPW_CT_MISSING)
            return spw_ct_fail(run, "TypeError", "%s() is missing an argument (%s)", function->name,
                               function->parameters);
    struct spw_ct_args bound = {.values = values, .count = count};
    return function->call(run, self, &bound);
}

struct spw_ct_value spw_ct_call(struct spw_ct_run *run, struct spw_ct_value callee,
                                const struct spw_ct_args *args)
{
    if (run->failed)
        return spw_ct_none();
    switch (callee.kind) {
    case SPW_CT_UNDEFINED:
        return spw_ct_fail_undefined(run, callee);
    case SPW_CT_FUNCTION:
        return spw_ct_call_function(run, callee.function, spw_ct_none(), args);
    case SPW_CT_METHOD:
        return spw_ct_call_function(run, callee.method->function, callee.method->self, args);
    case SPW_CT_MACRO:
        return spw_ct_call_macro(run, callee.macro, args);
    case SPW_CT_LOOP:
        if (args->count != 1)
            return spw_ct_fail(run, "TypeError", "loop() takes one argument");
        return spw_ct_call_loop(run, callee.loop, args->values[0]);
    default:
        return spw_ct_fail(run, "TypeError", "'%s' object is not callable",
                           spw_ct_type_name(callee));
    }
}

#define FN(name)                                                                                   \
    static struct spw_ct_value name(struct spw_ct_run *run, struct spw_ct_value self,              \
                                    const struct spw_ct_args *args)

FN(make_range)
{
    int64_t numbers[3] = {0, 0, 1};
    (void)self;
    for (size_t i = 0; i < 3; i++) {
        struct spw_ct_value value = args->values[i];
        if (value.kind != SPW_CT_MISSING && !spw_ct_is_integral(value, &numbers[i]))
            return spw_ct_fail(run, "TypeError", "'%s' object cannot be interpreted as an integer",
                               spw_ct_type_name(value));
    }
    if (args->values[1].kind == SPW_CT_MISSING) {
        numbers[1] = numbers[0];
        numbers[0] = 0;
    }
    if (numbers[2] == 0)
        return spw_ct_fail(run, "ValueError", "range() arg 3 must not be zero");
    struct spw_ct_range *range = spw_ct_take(run, sizeof(*range));
    if (!range)
        return spw_ct_none();
    *range = (struct spw_ct_range){.start = numbers[0], .stop = numbers[1], .step = numbers[2]};
    bool up = range->step > 0;
    uint64_t low = (uint64_t)(up ? range->start : range->stop);
    uint64_t high = (uint64_t)(up ? range->stop : range->start);
    uint64_t stride = up ? (uint64_t)range->step : 0 - (uint64_t)range->step;
    uint64_t count = (int64_t)high > (int64_t)low ? (high - low - 1) / stride + 1 : 0;
    if (count > SPW_CT_RANGE_MAX)
        return spw_ct_fail(run, "OverflowError",
                           "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).",
                           SPW_CT_RANGE_MAX);
    range->count = (int64_t)count;
    return (struct spw_ct_value){.kind = SPW_CT_RANGE, .range = range};
}

/* The pairs of a dict, or of an iterable of pairs, then the named arguments. */
static struct spw_ct_dict *collect_pairs(struct spw_ct_run *run, const struct spw_ct_args *args)
{
    struct spw_ct_dict *dict = spw_ct_dict_new(run, 0);
    if (args->count > 1)
        spw_ct_fail(run, "TypeError", "expected at most 1 argument, got %zu", args->count);
    if (args->count == 1 && args->values[0].kind == SPW_CT_DICT) {
        const struct spw_ct_dict *from = args->values[0].dict;
        for (size_t i = 0; i < from->count && !run->failed; i++)
            spw_ct_dict_set(run, dict, from->pairs[i].key, from->pairs[i].value);
    } else if (args->count == 1) {
        const struct spw_ct_list *list = spw_ct_iterate(run, args->values[0]);
        for (size_t i = 0; list && i < list->count && !run->failed; i++) {
            const struct spw_ct_list *pair = spw_ct_iterate(run, list->items[i]);
            if (pair && pair->count == 2 && spw_ct_hashable(pair->items[0]))
                spw_ct_dict_set(run, dict, pair->items[0], pair->items[1]);
            else
                spw_ct_fail(run, "ValueError", "dictionary update sequence needs pairs");
        }
    }
    for (size_t i = 0; args->named && i < args->named->count && !run->failed; i++)
        spw_ct_dict_set(run, dict, args->named->pairs[i].key, args->named->pairs[i].value);
    return run->failed ? NULL : dict;
}

FN(make_namespace)
{
    (void)self;
    struct spw_ct_dict *dict = collect_pairs(run, args);
    if (!dict)
        return spw_ct_none();
    return (struct spw_ct_value){.kind = SPW_CT_NAMESPACE, .names = dict};
}

FN(make_dict)
{
    (void)self;
    struct spw_ct_dict *dict = collect_pairs(run, args);
    if (!dict)
        return spw_ct_none();
    return (struct spw_ct_value){.kind = SPW_CT_DICT, .dict = dict};
}

FN(raise_exception)
{
    (void)self;
    struct spw_buffer text;
    spw_ct_buffer_init(&text);
    spw_ct_print(run, &text, args->values[0]);
    struct spw_ct_value result =
        spw_ct_fail(run, "TemplateError", "%.*s", (int)SPW_MIN(text.bytes, 1000u),
                    text.bytes ? spw_buffer_text(&text) : "");
    spw_buffer_done(&text);
    return result;
}

FN(strftime_now)
{
    (void)self;
    return spw_ct_strftime(run, args->values[0]);
}

static const struct spw_ct_function globals[] = {
    {"range", make_range, "start,stop,step", 1},
    {"namespace", make_namespace, "*", 0},
    {"dict", make_dict, "*", 0},
    {"raise_exception", raise_exception, "message", 1},
    {"strftime_now", strftime_now, "format", 1},
    {"cycler", NULL, "*", 0},
    {"joiner", NULL, "*", 0},
    {"lipsum", NULL, "*", 0},
};

const struct spw_ct_function *spw_ct_global_find(struct spw_ct_value name)
{
    return spw_ct_find_row(globals, SPW_ARRAY_COUNT(globals), name);
}
