/* "x is something". */
#include "runtime/model/chat_template_int.h"

#include <string.h>

#define FN(name)                                                                                   \
    static struct spw_ct_value name(struct spw_ct_run *run, struct spw_ct_value self,              \
                                    const struct spw_ct_args *args)

/* A test of the value alone. */
#define KIND(name, condition)                                                                      \
    FN(name)                                                                                       \
    {                                                                                              \
        (void)self;                                                                                \
        (void)run;                                                                                 \
        (void)args;                                                                                \
        return spw_ct_bool(condition);                                                             \
    }

KIND(is_defined, self.kind != SPW_CT_UNDEFINED)
KIND(is_undefined, self.kind == SPW_CT_UNDEFINED)
KIND(is_none, self.kind == SPW_CT_NONE)
KIND(is_boolean, self.kind == SPW_CT_BOOL)
KIND(is_true, self.kind == SPW_CT_BOOL && self.truth)
KIND(is_false, self.kind == SPW_CT_BOOL && !self.truth)
KIND(is_integer, self.kind == SPW_CT_INT)
KIND(is_float, self.kind == SPW_CT_FLOAT)
KIND(is_number, spw_ct_is_number(self))
KIND(is_string, self.kind == SPW_CT_STRING)
KIND(is_mapping, self.kind == SPW_CT_DICT)
KIND(is_sequence, self.kind == SPW_CT_STRING || self.kind == SPW_CT_LIST ||
                      self.kind == SPW_CT_TUPLE || self.kind == SPW_CT_DICT ||
                      self.kind == SPW_CT_RANGE || self.kind == SPW_CT_UNDEFINED)
KIND(is_iterable, spw_ct_iterable(self))
KIND(is_callable, self.kind == SPW_CT_FUNCTION || self.kind == SPW_CT_METHOD ||
                      self.kind == SPW_CT_MACRO || self.kind == SPW_CT_LOOP ||
                      self.kind == SPW_CT_UNDEFINED)
KIND(is_escaped, false)
KIND(is_filter, self.kind == SPW_CT_STRING && spw_ct_filter_find(self))
KIND(is_test, self.kind == SPW_CT_STRING && spw_ct_test_find(self))

static struct spw_ct_value remainder_is(struct spw_ct_run *run, struct spw_ct_value self,
                                        struct spw_ct_value divisor, int64_t wanted)
{
    struct spw_ct_value rest = spw_ct_arithmetic(run, SPW_CT_MODULO, self, divisor);
    return spw_ct_bool(!run->failed && spw_ct_equal(run, rest, spw_ct_int(wanted)));
}

FN(is_odd)
{
    (void)args;
    return remainder_is(run, self, spw_ct_int(2), 1);
}

FN(is_even)
{
    (void)args;
    return remainder_is(run, self, spw_ct_int(2), 0);
}

FN(is_divisible)
{
    return remainder_is(run, self, args->values[0], 0);
}

static struct spw_ct_value has_case(struct spw_ct_run *run, struct spw_ct_value self,
                                    const char *method)
{
    struct spw_ct_value text = spw_ct_string(run, self);
    const struct spw_ct_function *function = spw_ct_method_find(text, spw_ct_word(method));
    struct spw_ct_args none = {0};
    return run->failed ? text : spw_ct_call_function(run, function, text, &none);
}

FN(is_lower)
{
    (void)args;
    return has_case(run, self, "islower");
}

FN(is_upper)
{
    (void)args;
    return has_case(run, self, "isupper");
}

/* The same object. Equal texts count as the same, since Python shares the short ones. */
FN(is_same)
{
    struct spw_ct_value other = args->values[0];
    if (self.kind != other.kind)
        return spw_ct_bool(false);
    switch (self.kind) {
    case SPW_CT_NONE:
    case SPW_CT_BOOL:
    case SPW_CT_INT:
    case SPW_CT_FLOAT:
    case SPW_CT_STRING:
        return spw_ct_bool(spw_ct_equal(run, self, other));
    default:
        return spw_ct_bool(self.list == other.list);
    }
}

FN(is_in)
{
    return spw_ct_bool(spw_ct_contains(run, self, args->values[0]));
}

FN(is_equal)
{
    return spw_ct_bool(spw_ct_equal(run, self, args->values[0]));
}

FN(is_different)
{
    return spw_ct_bool(!spw_ct_equal(run, self, args->values[0]));
}

FN(is_greater)
{
    return spw_ct_bool(spw_ct_compare(run, self, args->values[0], ">") == 1);
}

FN(is_less)
{
    return spw_ct_bool(spw_ct_compare(run, self, args->values[0], "<") < 0);
}

FN(is_at_least)
{
    int order = spw_ct_compare(run, self, args->values[0], ">=");
    return spw_ct_bool(order == 0 || order == 1);
}

FN(is_at_most)
{
    return spw_ct_bool(spw_ct_compare(run, self, args->values[0], "<=") <= 0);
}

static const struct spw_ct_function tests[] = {
    {"defined", is_defined, "", 0},    {"undefined", is_undefined, "", 0},
    {"none", is_none, "", 0},          {"boolean", is_boolean, "", 0},
    {"true", is_true, "", 0},          {"false", is_false, "", 0},
    {"integer", is_integer, "", 0},    {"float", is_float, "", 0},
    {"number", is_number, "", 0},      {"string", is_string, "", 0},
    {"mapping", is_mapping, "", 0},    {"sequence", is_sequence, "", 0},
    {"iterable", is_iterable, "", 0},  {"callable", is_callable, "", 0},
    {"escaped", is_escaped, "", 0},    {"filter", is_filter, "", 0},
    {"test", is_test, "", 0},          {"odd", is_odd, "", 0},
    {"even", is_even, "", 0},          {"divisibleby", is_divisible, "num", 1},
    {"lower", is_lower, "", 0},        {"upper", is_upper, "", 0},
    {"sameas", is_same, "other", 1},   {"in", is_in, "seq", 1},
    {"==", is_equal, "other", 1},      {"eq", is_equal, "other", 1},
    {"equalto", is_equal, "other", 1}, {"!=", is_different, "other", 1},
    {"ne", is_different, "other", 1},  {">", is_greater, "other", 1},
    {"gt", is_greater, "other", 1},    {"greaterthan", is_greater, "other", 1},
    {">=", is_at_least, "other", 1},   {"ge", is_at_least, "other", 1},
    {"<", is_less, "other", 1},        {"lt", is_less, "other", 1},
    {"lessthan", is_less, "other", 1}, {"<=", is_at_most, "other", 1},
    {"le", is_at_most, "other", 1},
};

const struct spw_ct_function *spw_ct_test_find(struct spw_ct_value name)
{
    return spw_ct_find_row(tests, SPW_ARRAY_COUNT(tests), name);
}
