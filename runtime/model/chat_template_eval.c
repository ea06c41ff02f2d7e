/* Expressions: the walk of their nodes. */
#include "runtime/model/chat_template_int.h"

#include <string.h>

const struct spw_ct_value *spw_ct_lookup(const struct spw_ct_run *run,
                                         const struct spw_ct_scope *scope, uint32_t symbol)
{
    for (; scope; scope = scope->parent)
        for (const struct spw_ct_binding *binding = scope->first; binding; binding = binding->next)
            if (binding->symbol == symbol)
                return &binding->value;
    return run->context[symbol].kind == SPW_CT_MISSING ? NULL : &run->context[symbol];
}

void spw_ct_bind(struct spw_ct_run *run, struct spw_ct_scope *scope, uint32_t symbol,
                 struct spw_ct_value value)
{
    if (run->failed)
        return;
    for (struct spw_ct_binding *binding = scope->first; binding; binding = binding->next) {
        if (binding->symbol == symbol) {
            binding->value = value;
            return;
        }
    }
    struct spw_ct_binding *binding = run->free_bindings;
    if (binding)
        run->free_bindings = binding->next;
    else
        binding = spw_ct_take(run, sizeof(*binding));
    if (!binding)
        return;
    *binding = (struct spw_ct_binding){.next = scope->first, .value = value, .symbol = symbol};
    scope->first = binding;
}

static void add_named(struct spw_ct_run *run, struct spw_ct_dict *dict, struct spw_ct_value name,
                      struct spw_ct_value value)
{
    if (run->failed)
        return;
    if (name.kind != SPW_CT_STRING)
        spw_ct_fail(run, "TypeError", "keywords must be strings");
    else if (spw_ct_dict_find(run, dict, name))
        spw_ct_fail(run, "TypeError", "got multiple values for keyword argument '%.*s'",
                    (int)SPW_MIN(name.bytes, 100u), name.text);
    else
        spw_ct_dict_set(run, dict, name, value);
}

bool spw_ct_eval_args(struct spw_ct_run *run, struct spw_ct_scope *scope,
                      const struct spw_ct_node *node, const struct spw_ct_value *caller,
                      struct spw_ct_args *out)
{
    size_t positional = node->list.count - node->names_count;
    *out = (struct spw_ct_args){0};
    if (!node->list.count && !node->rest && !node->rest_named && !caller)
        return !run->failed;
    struct spw_ct_list *values = spw_ct_list_new(run, positional);
    for (size_t i = 0; i < positional && !run->failed; i++)
        spw_ct_list_add(run, values, spw_ct_eval(run, scope, node->list.items[i]));
    struct spw_ct_dict *named = spw_ct_dict_new(run, node->names_count + (caller != NULL));
    for (size_t i = 0; i < node->names_count && !run->failed; i++)
        add_named(run, named, node->names[i],
                  spw_ct_eval(run, scope, node->list.items[positional + i]));
    if (caller)
        add_named(run, named, spw_ct_word("caller"), *caller);
    if (node->rest) {
        const struct spw_ct_list *more = spw_ct_iterate(run, spw_ct_eval(run, scope, node->rest));
        for (size_t i = 0; more && i < more->count && !run->failed; i++)
            spw_ct_list_add(run, values, more->items[i]);
    }
    if (node->rest_named && !run->failed) {
        struct spw_ct_value more = spw_ct_eval(run, scope, node->rest_named);
        if (more.kind != SPW_CT_DICT)
            spw_ct_fail(run, "TypeError", "argument after ** must be a mapping, not %s",
                        spw_ct_type_name(more));
        for (size_t i = 0; !run->failed && i < more.dict->count; i++)
            add_named(run, named, more.dict->pairs[i].key, more.dict->pairs[i].value);
    }
    if (run->failed)
        return false;
    out->values = values->items;
    out->count = values->count;
    out->named = named;
    return true;
}

static struct spw_ct_value eval_list(struct spw_ct_run *run, struct spw_ct_scope *scope,
                                     const struct spw_ct_node *node)
{
    struct spw_ct_list *list = spw_ct_list_new(run, node->list.count);
    for (size_t i = 0; i < node->list.count && !run->failed; i++)
        spw_ct_list_add(run, list, spw_ct_eval(run, scope, node->list.items[i]));
    return spw_ct_from_list(list, node->kind == SPW_CT_NODE_LIST ? SPW_CT_LIST : SPW_CT_TUPLE);
}

static struct spw_ct_value eval_dict(struct spw_ct_run *run, struct spw_ct_scope *scope,
                                     const struct spw_ct_node *node)
{
    struct spw_ct_dict *dict = spw_ct_dict_new(run, node->list.count / 2);
    for (size_t i = 0; i + 1 < node->list.count && !run->failed; i += 2) {
        struct spw_ct_value key = spw_ct_eval(run, scope, node->list.items[i]);
        struct spw_ct_value value = spw_ct_eval(run, scope, node->list.items[i + 1]);
        if (!spw_ct_hashable(key))
            spw_ct_fail(run, "TypeError", "unhashable type: '%s'", spw_ct_type_name(key));
        spw_ct_dict_set(run, dict, key, value);
    }
    return run->failed ? spw_ct_none() : (struct spw_ct_value){.kind = SPW_CT_DICT, .dict = dict};
}

static bool holds(struct spw_ct_run *run, enum spw_ct_operator operation, struct spw_ct_value a,
                  struct spw_ct_value b)
{
    int order;
    switch (operation) {
    case SPW_CT_EQUAL:
        return spw_ct_equal(run, a, b);
    case SPW_CT_NOT_EQUAL:
        return !spw_ct_equal(run, a, b);
    case SPW_CT_LESS:
        return spw_ct_compare(run, a, b, "<") == -1;
    case SPW_CT_LESS_EQUAL:
        order = spw_ct_compare(run, a, b, "<=");
        return order == -1 || order == 0;
    case SPW_CT_GREATER:
        return spw_ct_compare(run, a, b, ">") == 1;
    case SPW_CT_GREATER_EQUAL:
        order = spw_ct_compare(run, a, b, ">=");
        return order == 1 || order == 0;
    case SPW_CT_NOT_IN:
        return !spw_ct_contains(run, a, b);
    default:
        return spw_ct_contains(run, a, b);
    }
}

static struct spw_ct_value eval_compare(struct spw_ct_run *run, struct spw_ct_scope *scope,
                                        const struct spw_ct_node *node)
{
    struct spw_ct_value left = spw_ct_eval(run, scope, node->first);
    bool result = true;
    for (size_t i = 0; i < node->list.count && result && !run->failed; i++) {
        const struct spw_ct_node *operand = node->list.items[i];
        struct spw_ct_value right = spw_ct_eval(run, scope, operand->first);
        result = !run->failed && holds(run, operand->operation, left, right);
        left = right;
    }
    return spw_ct_bool(result);
}

static struct spw_ct_value eval_concat(struct spw_ct_run *run, struct spw_ct_scope *scope,
                                       const struct spw_ct_node *node)
{
    struct spw_buffer out;
    spw_ct_buffer_init(&out);
    for (size_t i = 0; i < node->list.count && !run->failed && !out.failed; i++)
        spw_ct_print(run, &out, spw_ct_eval(run, scope, node->list.items[i]));
    return spw_ct_collect(run, &out);
}

static struct spw_ct_value eval_item(struct spw_ct_run *run, struct spw_ct_scope *scope,
                                     const struct spw_ct_node *node)
{
    struct spw_ct_value object = spw_ct_eval(run, scope, node->first);
    if (node->second->kind != SPW_CT_NODE_SLICE)
        return spw_ct_item(run, object, spw_ct_eval(run, scope, node->second));
    const struct spw_ct_node *const parts[3] = {node->second->first, node->second->second,
                                                node->second->third};
    struct spw_ct_value bounds[3];
    for (int i = 0; i < 3; i++)
        bounds[i] = parts[i] ? spw_ct_eval(run, scope, parts[i]) : spw_ct_none();
    return spw_ct_slice(run, object, bounds);
}

struct spw_ct_value spw_ct_eval_filter(struct spw_ct_run *run, struct spw_ct_scope *scope,
                                       const struct spw_ct_node *node, struct spw_ct_value operand)
{
    struct spw_ct_args args;
    if (node->first && node->first->kind == SPW_CT_NODE_FILTER && operand.kind != SPW_CT_MISSING)
        operand = spw_ct_eval_filter(run, scope, node->first, operand);
    else if (node->first)
        operand = spw_ct_eval(run, scope, node->first);
    run->line = node->line;
    if (!node->function)
        return spw_ct_fail(run, "TemplateRuntimeError", "No %s named '%.*s' found.",
                           node->kind == SPW_CT_NODE_TEST ? "test" : "filter",
                           (int)SPW_MIN(node->value.bytes, 100u), node->value.text);
    if (!spw_ct_eval_args(run, scope, node, NULL, &args))
        return spw_ct_none();
    run->line = node->line;
    return spw_ct_call_function(run, node->function, operand, &args);
}

static struct spw_ct_value eval_call(struct spw_ct_run *run, struct spw_ct_scope *scope,
                                     const struct spw_ct_node *node)
{
    struct spw_ct_args args;
    struct spw_ct_value callee = spw_ct_eval(run, scope, node->first);
    if (run->failed || !spw_ct_eval_args(run, scope, node, NULL, &args))
        return spw_ct_none();
    run->line = node->line;
    return spw_ct_call(run, callee, &args);
}

static struct spw_ct_value eval_name(struct spw_ct_run *run, struct spw_ct_scope *scope,
                                     const struct spw_ct_node *node)
{
    const struct spw_ct_value *found = spw_ct_lookup(run, scope, node->symbol);
    struct spw_ct_value missing = {0};
    return found ? *found : spw_ct_undefined(run, missing, node->value);
}

static struct spw_ct_value eval_condition(struct spw_ct_run *run, struct spw_ct_scope *scope,
                                          const struct spw_ct_node *node)
{
    if (spw_ct_truth(spw_ct_eval(run, scope, node->first)))
        return spw_ct_eval(run, scope, node->second);
    if (node->third)
        return spw_ct_eval(run, scope, node->third);
    return spw_ct_undefined_hint(
        run, "the inline if-expression evaluated to false and no else section was defined.");
}

static struct spw_ct_value eval_node(struct spw_ct_run *run, struct spw_ct_scope *scope,
                                     const struct spw_ct_node *node)
{
    struct spw_ct_value left;
    struct spw_ct_value missing = {0};
    switch (node->kind) {
    case SPW_CT_NODE_CONST:
        return node->value;
    case SPW_CT_NODE_NAME:
        return eval_name(run, scope, node);
    case SPW_CT_NODE_TUPLE:
    case SPW_CT_NODE_LIST:
        return eval_list(run, scope, node);
    case SPW_CT_NODE_DICT:
        return eval_dict(run, scope, node);
    case SPW_CT_NODE_CONDITION:
        return eval_condition(run, scope, node);
    case SPW_CT_NODE_OR:
        left = spw_ct_eval(run, scope, node->first);
        return spw_ct_truth(left) ? left : spw_ct_eval(run, scope, node->second);
    case SPW_CT_NODE_AND:
        left = spw_ct_eval(run, scope, node->first);
        return spw_ct_truth(left) ? spw_ct_eval(run, scope, node->second) : left;
    case SPW_CT_NODE_NOT:
        return spw_ct_bool(!spw_ct_truth(spw_ct_eval(run, scope, node->first)));
    case SPW_CT_NODE_COMPARE:
        return eval_compare(run, scope, node);
    case SPW_CT_NODE_CONCAT:
        return eval_concat(run, scope, node);
    case SPW_CT_NODE_BINARY:
        left = spw_ct_eval(run, scope, node->first);
        return spw_ct_arithmetic(run, node->operation, left, spw_ct_eval(run, scope, node->second));
    case SPW_CT_NODE_NEGATE:
    case SPW_CT_NODE_PLUS:
        return spw_ct_negate(run, spw_ct_eval(run, scope, node->first),
                             node->kind == SPW_CT_NODE_NEGATE);
    case SPW_CT_NODE_ATTRIBUTE:
        return spw_ct_attribute(run, spw_ct_eval(run, scope, node->first), node->value);
    case SPW_CT_NODE_ITEM:
        return eval_item(run, scope, node);
    case SPW_CT_NODE_CALL:
        return eval_call(run, scope, node);
    case SPW_CT_NODE_FILTER:
    case SPW_CT_NODE_TEST:
        return spw_ct_eval_filter(run, scope, node, missing);
    default:
        return spw_ct_fail(run, "TypeError", "a slice stands where a value is needed");
    }
}

struct spw_ct_value spw_ct_eval(struct spw_ct_run *run, struct spw_ct_scope *scope,
                                const struct spw_ct_node *node)
{
    if (!spw_ct_charge(run, 1))
        return spw_ct_none();
    if (run->depth >= SPW_CT_DEPTH_MAX)
        return spw_ct_fail_size(run, "the depth");
    run->depth++;
    run->line = node->line;
    struct spw_ct_value value = eval_node(run, scope, node);
    run->depth--;
    return run->failed ? spw_ct_none() : value;
}
