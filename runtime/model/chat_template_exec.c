/* Statements: the walk of their nodes, scopes, macros and loops.
 *
 * Scopes are as in Jinja: an "if" has none; each pass of a loop, each call of a macro and each
 * block of set, filter, call and with has its own, so that "set" inside is lost at its end. A macro
 * sees the variables of the scope it stands in as they are when it is called.
 */
#include "runtime/model/chat_template_int.h"

#include <string.h>

enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };

static enum flow exec_body(struct spw_ct_run *run, struct spw_ct_scope *scope,
                           const struct spw_ct_node_list *body, struct spw_buffer *out);

static bool enter(struct spw_ct_run *run)
{
    if (run->failed)
        return false;
    if (run->calls >= SPW_CT_CALLS_MAX || run->depth >= SPW_CT_DEPTH_MAX) {
        spw_ct_fail_size(run, "the depth of calls");
        return false;
    }
    run->calls++;
    return true;
}

static struct spw_ct_scope *scope_new(struct spw_ct_run *run, struct spw_ct_scope *parent)
{
    struct spw_ct_scope *scope = spw_ct_take(run, sizeof(*scope));
    if (scope)
        scope->parent = parent;
    return scope;
}

/* Forget the bindings of a scope that nothing refers to any more. */
static void scope_clear(struct spw_ct_run *run, struct spw_ct_scope *scope)
{
    while (scope->first) {
        struct spw_ct_binding *binding = scope->first;
        scope->first = binding->next;
        binding->next = run->free_bindings;
        run->free_bindings = binding;
    }
}

static void assign(struct spw_ct_run *run, struct spw_ct_scope *scope,
                   const struct spw_ct_node *target, struct spw_ct_value value)
{
    if (run->failed)
        return;
    run->line = target->line;
    if (target->kind == SPW_CT_NODE_NAME) {
        spw_ct_bind(run, scope, target->symbol, value);
    } else if (target->kind == SPW_CT_NODE_FIELD) {
        const struct spw_ct_value *object = spw_ct_lookup(run, scope, target->symbol);
        if (object && object->kind == SPW_CT_NAMESPACE)
            spw_ct_dict_set(run, object->names, target->value, value);
        else
            spw_ct_fail(run, "TemplateRuntimeError",
                        "cannot assign attribute on non-namespace object");
    } else {
        size_t count = target->list.count;
        if (!spw_ct_iterable(value)) {
            spw_ct_fail(run, "TypeError", "cannot unpack non-iterable %s object",
                        spw_ct_type_name(value));
            return;
        }
        const struct spw_ct_list *list = spw_ct_iterate(run, value);
        if (list && list->count > count)
            spw_ct_fail(run, "ValueError", "too many values to unpack (expected %zu)", count);
        else if (list && list->count < count)
            spw_ct_fail(run, "ValueError", "not enough values to unpack (expected %zu, got %zu)",
                        count, list->count);
        for (size_t i = 0; list && i < count && !run->failed; i++)
            assign(run, scope, target->list.items[i], list->items[i]);
    }
}

/* The body in a scope of its own, as a text. */
static enum flow capture(struct spw_ct_run *run, struct spw_ct_scope *scope,
                         const struct spw_ct_node_list *body, struct spw_ct_value *out_text)
{
    struct spw_buffer out;
    enum flow flow = FLOW_NEXT;
    spw_ct_buffer_init(&out);
    if (scope && !run->failed)
        flow = exec_body(run, scope, body, &out);
    *out_text = spw_ct_collect(run, &out);
    return flow;
}

static const struct spw_ct_list *loop_items(struct spw_ct_run *run, struct spw_ct_scope *scope,
                                            const struct spw_ct_node *node,
                                            struct spw_ct_value iterable)
{
    const struct spw_ct_list *items = spw_ct_iterate(run, iterable);
    if (!node->third || !items)
        return items;
    struct spw_ct_list *chosen = spw_ct_list_new(run, 0);
    struct spw_ct_scope *inner = scope_new(run, scope);
    for (size_t i = 0; inner && i < items->count && !run->failed; i++) {
        assign(run, inner, node->first, items->items[i]);
        if (spw_ct_truth(spw_ct_eval(run, inner, node->third)))
            spw_ct_list_add(run, chosen, items->items[i]);
    }
    return run->failed ? NULL : chosen;
}

static enum flow exec_loop(struct spw_ct_run *run, struct spw_ct_scope *scope,
                           const struct spw_ct_node *node, struct spw_ct_value iterable,
                           size_t depth, struct spw_buffer *out)
{
    const struct spw_ct_list *items = loop_items(run, scope, node, iterable);
    struct spw_ct_loop *loop = spw_ct_take(run, sizeof(*loop));
    if (!items || !loop)
        return FLOW_NEXT;
    *loop = (struct spw_ct_loop){.node = node, .scope = scope, .items = items, .depth = depth};
    struct spw_ct_value loop_value = {.kind = SPW_CT_LOOP, .loop = loop};
    struct spw_ct_scope *inner = NULL;
    bool completed = false; /* a pass came to its end: no "else" */
    for (size_t i = 0; i < items->count && !run->failed && !out->failed; i++) {
        loop->index = i;
        if (!inner || node->closes)
            inner = scope_new(run, scope);
        if (!inner || !spw_ct_charge(run, 1))
            break;
        spw_ct_bind(run, inner, run->chat_template->symbol_loop, loop_value);
        assign(run, inner, node->first, items->items[i]);
        enum flow flow = exec_body(run, inner, &node->list, out);
        if (!node->closes)
            scope_clear(run, inner);
        completed = completed || flow == FLOW_NEXT;
        if (flow == FLOW_BREAK)
            break;
    }
    if (!completed && !run->failed && node->other.count) {
        inner = scope_new(run, scope);
        return inner ? exec_body(run, inner, &node->other, out) : FLOW_NEXT;
    }
    return FLOW_NEXT;
}

struct spw_ct_value spw_ct_call_loop(struct spw_ct_run *run, const struct spw_ct_loop *loop,
                                     struct spw_ct_value items)
{
    struct spw_buffer out;
    if (!loop->node->recursive)
        return spw_ct_fail(run, "TypeError",
                           "The loop must have the 'recursive' marker to be called recursively.");
    if (!enter(run))
        return spw_ct_none();
    spw_ct_buffer_init(&out);
    exec_loop(run, loop->scope, loop->node, items, loop->depth + 1, &out);
    run->calls--;
    return spw_ct_collect(run, &out);
}

/* Parameters into the macro's scope: by position, by name, by default. */
static void bind_parameters(struct spw_ct_run *run, struct spw_ct_scope *scope,
                            const struct spw_ct_node *node, const struct spw_ct_args *args)
{
    size_t count = node->parameters.count;
    for (size_t i = 0; i < count && !run->failed; i++) {
        const struct spw_ct_node *parameter = node->parameters.items[i];
        const struct spw_ct_value *named =
            args->named ? spw_ct_dict_find(run, args->named, parameter->value) : NULL;
        struct spw_ct_value value = {.kind = SPW_CT_MISSING};
        if (i < args->count) {
            value = args->values[i];
        } else if (named) {
            value = *named;
        } else if (i >= count - node->other.count) {
            value = spw_ct_eval(run, scope, node->other.items[i - (count - node->other.count)]);
        }
        if (value.kind == SPW_CT_MISSING) {
            struct spw_buffer hint;
            spw_ct_buffer_init(&hint);
            spw_buffer_add_text(&hint, "parameter ");
            spw_ct_print_repr(run, &hint, parameter->value);
            spw_buffer_add(&hint, " was not provided", sizeof(" was not provided"));
            value = spw_ct_undefined_hint(run, spw_ct_collect(run, &hint).text);
        }
        spw_ct_bind(run, scope, parameter->symbol, value);
    }
}

/* What is left of the arguments: caller, kwargs and varargs, or an error. */
static void bind_rest(struct spw_ct_run *run, struct spw_ct_scope *scope,
                      const struct spw_ct_node *node, const struct spw_ct_args *args)
{
    const struct spw_chat_template *names = run->chat_template;
    struct spw_ct_dict *rest = spw_ct_dict_new(run, 0);
    struct spw_ct_value caller = {.kind = SPW_CT_MISSING};
    size_t count = node->parameters.count;
    for (size_t i = 0; args->named && i < args->named->count && !run->failed; i++) {
        struct spw_ct_value name = args->named->pairs[i].key;
        bool is_parameter = false;
        for (size_t j = args->count; j < count; j++)
            is_parameter |= spw_ct_same_text(node->parameters.items[j]->value, name);
        if (is_parameter)
            continue;
        if (node->uses_caller && spw_ct_is(name, "caller"))
            caller = args->named->pairs[i].value;
        else
            spw_ct_dict_set(run, rest, name, args->named->pairs[i].value);
    }
    if (node->uses_caller)
        spw_ct_bind(run, scope, names->symbol_caller,
                    caller.kind == SPW_CT_MISSING || caller.kind == SPW_CT_NONE
                        ? spw_ct_undefined_hint(run, "No caller defined")
                        : caller);
    int shown = (int)SPW_MIN(node->value.bytes, 100u);
    if (node->uses_kwargs && rest) {
        spw_ct_bind(run, scope, names->symbol_kwargs,
                    (struct spw_ct_value){.kind = SPW_CT_DICT, .dict = rest});
    } else if (rest && rest->count) {
        struct spw_ct_value name = rest->pairs[0].key;
        if (spw_ct_dict_find(run, rest, spw_ct_word("caller")))
            spw_ct_fail(run, "TypeError",
                        "macro '%.*s' was invoked with two values for the special caller argument."
                        " This is most likely a bug.",
                        shown, node->value.text);
        else
            spw_ct_fail(run, "TypeError", "macro '%.*s' takes no keyword argument '%.*s'", shown,
                        node->value.text, (int)SPW_MIN(name.bytes, 100u), name.text);
    }
    if (node->uses_varargs) {
        struct spw_ct_list *list = spw_ct_list_new(run, 0);
        for (size_t i = count; i < args->count && !run->failed; i++)
            spw_ct_list_add(run, list, args->values[i]);
        spw_ct_bind(run, scope, names->symbol_varargs, spw_ct_from_list(list, SPW_CT_TUPLE));
    } else if (args->count > count) {
        spw_ct_fail(run, "TypeError", "macro '%.*s' takes not more than %zu argument(s)", shown,
                    node->value.text, count);
    }
}

struct spw_ct_value spw_ct_call_macro(struct spw_ct_run *run, const struct spw_ct_macro *macro,
                                      const struct spw_ct_args *args)
{
    const struct spw_ct_node *node = macro->node;
    struct spw_ct_value result = spw_ct_none();
    if (!enter(run))
        return result;
    struct spw_ct_scope *scope = scope_new(run, macro->scope);
    if (scope) {
        /* names first: a wrong call is an error before any default is looked at */
        bind_rest(run, scope, node, args);
        bind_parameters(run, scope, node, args);
        capture(run, scope, &node->list, &result);
    }
    run->calls--;
    return result;
}

static struct spw_ct_value make_macro(struct spw_ct_run *run, struct spw_ct_scope *scope,
                                      const struct spw_ct_node *node)
{
    struct spw_ct_macro *macro = spw_ct_take(run, sizeof(*macro));
    if (!macro)
        return spw_ct_none();
    *macro = (struct spw_ct_macro){.node = node, .scope = scope};
    return (struct spw_ct_value){.kind = SPW_CT_MACRO, .macro = macro};
}

static void exec_call_block(struct spw_ct_run *run, struct spw_ct_scope *scope,
                            const struct spw_ct_node *node, struct spw_buffer *out)
{
    struct spw_ct_args args;
    struct spw_ct_value caller = make_macro(run, scope, node);
    struct spw_ct_value callee = spw_ct_eval(run, scope, node->first->first);
    if (run->failed || !spw_ct_eval_args(run, scope, node->first, &caller, &args))
        return;
    run->line = node->line;
    spw_ct_print(run, out, spw_ct_call(run, callee, &args));
}

static void exec_with(struct spw_ct_run *run, struct spw_ct_scope *scope,
                      const struct spw_ct_node *node, struct spw_ct_scope *inner)
{
    /* all values are of the scope outside */
    for (size_t i = 0; inner && i < node->other.count && !run->failed; i++)
        assign(run, inner, node->parameters.items[i],
               spw_ct_eval(run, scope, node->other.items[i]));
}

static enum flow exec_if(struct spw_ct_run *run, struct spw_ct_scope *scope,
                         const struct spw_ct_node *node, struct spw_buffer *out)
{
    for (; !run->failed; node = node->second) {
        if (spw_ct_truth(spw_ct_eval(run, scope, node->first)))
            return exec_body(run, scope, &node->list, out);
        if (!node->second)
            return exec_body(run, scope, &node->other, out);
    }
    return FLOW_NEXT;
}

static enum flow exec_node(struct spw_ct_run *run, struct spw_ct_scope *scope,
                           const struct spw_ct_node *node, struct spw_buffer *out)
{
    struct spw_ct_scope *inner;
    struct spw_ct_value value;
    enum flow flow;
    switch (node->kind) {
    case SPW_CT_NODE_DATA:
        spw_ct_charge(run, node->value.bytes / 64);
        spw_buffer_add(out, node->value.text, node->value.bytes);
        break;
    case SPW_CT_NODE_PRINT:
        value = spw_ct_eval(run, scope, node->first);
        if (value.kind == SPW_CT_STRING)
            spw_ct_charge(run, value.bytes / 64);
        if (!run->failed)
            spw_ct_print(run, out, value);
        break;
    case SPW_CT_NODE_IF:
        return exec_if(run, scope, node, out);
    case SPW_CT_NODE_FOR:
        value = spw_ct_eval(run, scope, node->second);
        return exec_loop(run, scope, node, value, 0, out);
    case SPW_CT_NODE_SET:
        assign(run, scope, node->first, spw_ct_eval(run, scope, node->second));
        break;
    case SPW_CT_NODE_SET_BLOCK:
        flow = capture(run, scope_new(run, scope), &node->list, &value);
        if (flow != FLOW_NEXT)
            return flow;
        if (node->second && !run->failed)
            value = spw_ct_eval_filter(run, scope, node->second, value);
        assign(run, scope, node->first, value);
        break;
    case SPW_CT_NODE_MACRO:
        spw_ct_bind(run, scope, node->symbol, make_macro(run, scope, node));
        break;
    case SPW_CT_NODE_CALL_BLOCK:
        exec_call_block(run, scope, node, out);
        break;
    case SPW_CT_NODE_FILTER_BLOCK:
        flow = capture(run, scope_new(run, scope), &node->list, &value);
        if (flow != FLOW_NEXT)
            return flow;
        if (!run->failed)
            spw_ct_print(run, out, spw_ct_eval_filter(run, scope, node->first, value));
        break;
    case SPW_CT_NODE_WITH:
        inner = scope_new(run, scope);
        exec_with(run, scope, node, inner);
        return inner ? exec_body(run, inner, &node->list, out) : FLOW_NEXT;
    case SPW_CT_NODE_GROUP:
        return exec_body(run, scope, &node->list, out);
    case SPW_CT_NODE_BREAK:
        return FLOW_BREAK;
    case SPW_CT_NODE_CONTINUE:
        return FLOW_CONTINUE;
    default:
        assert(!"an expression among the statements");
        break;
    }
    return FLOW_NEXT;
}

static enum flow exec_body(struct spw_ct_run *run, struct spw_ct_scope *scope,
                           const struct spw_ct_node_list *body, struct spw_buffer *out)
{
    enum flow flow = FLOW_NEXT;
    if (run->depth >= SPW_CT_DEPTH_MAX)
        spw_ct_fail_size(run, "the depth");
    run->depth++;
    for (size_t i = 0; i < body->count && flow == FLOW_NEXT; i++) {
        if (!spw_ct_charge(run, 1) || out->failed)
            break;
        run->line = body->items[i]->line;
        flow = exec_node(run, scope, body->items[i], out);
    }
    run->depth--;
    return flow;
}

void spw_ct_exec(struct spw_ct_run *run, struct spw_ct_scope *scope,
                 const struct spw_ct_node_list *body, struct spw_buffer *out)
{
    exec_body(run, scope, body, out);
}
