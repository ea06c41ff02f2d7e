/* Tokens to statement nodes, and the parser's small tools. */
#include "runtime/model/chat_template_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void parse_body(struct spw_ct_parser *parser, struct spw_ct_node_list *out,
                       const char *const *ends);

void spw_ct_parser_fail(struct spw_ct_parser *parser, uint32_t line, const char *kind,
                        const char *format, ...)
{
    if (parser->failed)
        return;
    parser->failed = true;
    parser->status = SPW_INVALID;
    char text[SPW_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    spw_fail(parser->error, SPW_INVALID, "%s: %s (chat template line %u)", kind, text, line);
}

void spw_ct_parser_fail_size(struct spw_ct_parser *parser, uint32_t line, const char *what)
{
    if (parser->failed)
        return;
    parser->failed = true;
    parser->status = SPW_TOO_LARGE;
    spw_fail(parser->error, SPW_TOO_LARGE, "%s of a chat template passes the limit (line %u)", what,
             line);
}

void *spw_ct_parser_take(struct spw_ct_parser *parser, size_t bytes)
{
    void *piece = spw_ct_heap_take(parser->heap, bytes);
    if (!piece)
        spw_ct_parser_fail_size(parser, 0, "the memory");
    return piece;
}

const struct spw_ct_token *spw_ct_peek(const struct spw_ct_parser *parser)
{
    return &parser->tokens[parser->at];
}

const struct spw_ct_token *spw_ct_next(struct spw_ct_parser *parser)
{
    const struct spw_ct_token *token = spw_ct_peek(parser);
    if (token->kind != SPW_CT_TOKEN_END)
        parser->at++;
    return token;
}

static bool at(const struct spw_ct_parser *parser, enum spw_ct_token_kind kind, const char *text)
{
    const struct spw_ct_token *token = spw_ct_peek(parser);
    return token->kind == kind && spw_ct_is(spw_ct_text(token->text, token->bytes), text);
}

bool spw_ct_at_operator(const struct spw_ct_parser *parser, const char *text)
{
    return at(parser, SPW_CT_TOKEN_OPERATOR, text);
}

bool spw_ct_at_name(const struct spw_ct_parser *parser, const char *text)
{
    return at(parser, SPW_CT_TOKEN_NAME, text);
}

bool spw_ct_skip_operator(struct spw_ct_parser *parser, const char *text)
{
    if (!spw_ct_at_operator(parser, text))
        return false;
    spw_ct_next(parser);
    return true;
}

bool spw_ct_skip_name(struct spw_ct_parser *parser, const char *text)
{
    if (!spw_ct_at_name(parser, text))
        return false;
    spw_ct_next(parser);
    return true;
}

bool spw_ct_expect_operator(struct spw_ct_parser *parser, const char *text)
{
    if (spw_ct_skip_operator(parser, text))
        return true;
    char wanted[8];
    snprintf(wanted, sizeof(wanted), "'%s'", text);
    spw_ct_unexpected(parser, wanted);
    return false;
}

void spw_ct_unexpected(struct spw_ct_parser *parser, const char *wanted)
{
    const struct spw_ct_token *token = spw_ct_peek(parser);
    spw_ct_parser_fail(parser, token->line, "TemplateSyntaxError", "expected %s, found '%.*s'",
                       wanted, (int)SPW_MIN(token->bytes, 60u), token->text ? token->text : "");
}

bool spw_ct_enter(struct spw_ct_parser *parser)
{
    if (parser->failed)
        return false;
    if (parser->nesting >= SPW_CT_NESTING_MAX) {
        spw_ct_parser_fail_size(parser, spw_ct_peek(parser)->line, "the nesting");
        return false;
    }
    parser->nesting++;
    return true;
}

struct spw_ct_node *spw_ct_node_new(struct spw_ct_parser *parser, enum spw_ct_node_kind kind,
                                    uint32_t line)
{
    /* after a failure nodes are still written to, never read */
    struct spw_ct_node *node = spw_ct_parser_take(parser, sizeof(*node));
    if (!node) {
        node = &parser->spare;
        *node = (struct spw_ct_node){0};
    }
    node->kind = kind;
    node->line = line;
    return node;
}

uint32_t spw_ct_symbol(struct spw_ct_parser *parser, const char *text, size_t bytes)
{
    struct spw_chat_template *chat_template = parser->chat_template;
    struct spw_ct_value name = spw_ct_text(text, bytes);
    for (uint32_t i = 0; i < chat_template->symbols_count; i++)
        if (spw_ct_same_text(chat_template->symbols[i], name))
            return i;
    if (chat_template->symbols_count == SPW_CT_SYMBOLS_MAX) {
        spw_ct_parser_fail_size(parser, spw_ct_peek(parser)->line, "the number of names");
        return 0;
    }
    if (chat_template->symbols_count == parser->symbols_capacity) {
        uint32_t capacity = SPW_MAX(64u, parser->symbols_capacity * 2);
        struct spw_ct_value *symbols = spw_ct_parser_take(parser, capacity * sizeof(*symbols));
        if (!symbols)
            return 0;
        if (chat_template->symbols_count)
            memcpy(symbols, chat_template->symbols,
                   chat_template->symbols_count * sizeof(*symbols));
        chat_template->symbols = symbols;
        parser->symbols_capacity = capacity;
    }
    chat_template->symbols[chat_template->symbols_count] = name;
    return chat_template->symbols_count++;
}

void spw_ct_append(struct spw_ct_parser *parser, struct spw_ct_node_list *list,
                   struct spw_ct_node *node)
{
    /* room grows at counts 0, 4, 8, 16 ... */
    size_t count = list->count;
    if (count == 0 || (count >= 4 && (count & (count - 1)) == 0)) {
        struct spw_ct_node **items =
            spw_ct_parser_take(parser, SPW_MAX(4u, count * 2) * sizeof(struct spw_ct_node *));
        if (!items)
            return;
        if (count)
            memcpy(items, list->items, count * sizeof(struct spw_ct_node *));
        list->items = items;
    }
    list->items[list->count++] = node;
}

/* After an expression: whether a filter that does not exist is an error here. */
static void settle(struct spw_ct_parser *parser)
{
    const struct spw_ct_node *node = parser->unknown;
    parser->unknown = NULL;
    if (node && !parser->soft)
        spw_ct_parser_fail(parser, node->line, "TemplateAssertionError", "No %s named '%.*s'.",
                           node->kind == SPW_CT_NODE_TEST ? "test" : "filter",
                           (int)SPW_MIN(node->value.bytes, 100u), node->value.text);
}

static void expect_block_end(struct spw_ct_parser *parser)
{
    settle(parser);
    if (spw_ct_peek(parser)->kind != SPW_CT_TOKEN_BLOCK_END)
        spw_ct_unexpected(parser, "'%}'");
    spw_ct_next(parser);
}

/* The rest of the opening tag, then statements up to one of the ends, whose name is next. */
static void parse_block(struct spw_ct_parser *parser, struct spw_ct_node_list *out,
                        const char *const *ends)
{
    spw_ct_skip_operator(parser, ":");
    expect_block_end(parser);
    parse_body(parser, out, ends);
}

/* The same with one end, which is eaten, in a scope of its own. */
static void parse_inner(struct spw_ct_parser *parser, struct spw_ct_node_list *out, const char *end)
{
    const char *const ends[] = {end, NULL};
    bool soft = parser->soft;
    spw_ct_skip_operator(parser, ":");
    expect_block_end(parser);
    parser->soft = false;
    parse_body(parser, out, ends);
    parser->soft = soft;
    spw_ct_next(parser);
}

static struct spw_ct_node *parse_set(struct spw_ct_parser *parser, uint32_t line)
{
    struct spw_ct_node *node = spw_ct_node_new(parser, SPW_CT_NODE_SET, line);
    node->first = spw_ct_parse_target(parser, true, NULL);
    if (spw_ct_skip_operator(parser, "=")) {
        node->second = spw_ct_parse_tuple(parser, true, NULL);
        return node;
    }
    node->kind = SPW_CT_NODE_SET_BLOCK;
    node->second = spw_ct_parse_filters(parser, NULL, false);
    parse_inner(parser, &node->list, "endset");
    return node;
}

static struct spw_ct_node *parse_for(struct spw_ct_parser *parser, uint32_t line)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    struct spw_ct_node *node = spw_ct_node_new(parser, SPW_CT_NODE_FOR, line);
    bool soft = parser->soft;
    unsigned closures = parser->closures;
    node->first = spw_ct_parse_target(parser, false, "in");
    if (!spw_ct_skip_name(parser, "in"))
        spw_ct_unexpected(parser, "'in'");
    node->second = spw_ct_parse_tuple(parser, false, "recursive");
    settle(parser);
    parser->soft = false;
    if (spw_ct_skip_name(parser, "if"))
        node->third = spw_ct_parse_expression(parser);
    node->recursive = spw_ct_skip_name(parser, "recursive");
    parser->loops++;
    parse_block(parser, &node->list, ends);
    parser->loops--;
    if (spw_ct_skip_name(parser, "else"))
        parse_inner(parser, &node->other, "endfor");
    else
        spw_ct_next(parser);
    parser->soft = soft;
    node->closes = parser->closures != closures;
    return node;
}

static struct spw_ct_node *parse_if(struct spw_ct_parser *parser, uint32_t line)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct spw_ct_node *first = spw_ct_node_new(parser, SPW_CT_NODE_IF, line);
    struct spw_ct_node *node = first;
    bool soft = parser->soft;
    parser->soft = true;
    for (;;) {
        node->first = spw_ct_parse_tuple(parser, false, NULL);
        parse_block(parser, &node->list, ends);
        uint32_t next_line = spw_ct_peek(parser)->line;
        if (parser->failed || !spw_ct_skip_name(parser, "elif"))
            break;
        struct spw_ct_node *next = spw_ct_node_new(parser, SPW_CT_NODE_IF, next_line);
        node->second = next;
        node = next;
    }
    if (spw_ct_skip_name(parser, "else"))
        parse_block(parser, &node->other, &ends[2]);
    spw_ct_next(parser);
    parser->soft = soft;
    return first;
}

static void parse_signature(struct spw_ct_parser *parser, struct spw_ct_node *node)
{
    spw_ct_expect_operator(parser, "(");
    for (bool comma = false; !parser->failed && !spw_ct_at_operator(parser, ")"); comma = true) {
        if (comma)
            spw_ct_expect_operator(parser, ",");
        const struct spw_ct_token *token = spw_ct_peek(parser);
        if (token->kind != SPW_CT_TOKEN_NAME)
            spw_ct_unexpected(parser, "a parameter's name");
        spw_ct_next(parser);
        struct spw_ct_node *name = spw_ct_node_new(parser, SPW_CT_NODE_NAME, token->line);
        name->value = spw_ct_text(token->text, token->bytes);
        name->symbol = spw_ct_symbol(parser, token->text, token->bytes);
        spw_ct_append(parser, &node->parameters, name);
        if (spw_ct_skip_operator(parser, "="))
            spw_ct_append(parser, &node->other, spw_ct_parse_expression(parser));
        else if (node->other.count)
            spw_ct_parser_fail(parser, token->line, "TemplateSyntaxError",
                               "non-default argument follows default argument");
    }
    spw_ct_expect_operator(parser, ")");
}

static bool has_parameter(const struct spw_ct_node *node, const char *name)
{
    for (size_t i = 0; i < node->parameters.count; i++)
        if (spw_ct_is(node->parameters.items[i]->value, name))
            return true;
    return false;
}

/* The body of a macro or call block; notes which of the special names it uses. */
static void parse_macro_body(struct spw_ct_parser *parser, struct spw_ct_node *node,
                             const char *end)
{
    bool caller = parser->uses_caller;
    bool varargs = parser->uses_varargs;
    bool kwargs = parser->uses_kwargs;
    unsigned loops = parser->loops;
    parser->uses_caller = parser->uses_varargs = parser->uses_kwargs = false;
    parser->loops = 0;
    parser->closures++;
    parse_inner(parser, &node->list, end);
    node->uses_caller = parser->uses_caller && !has_parameter(node, "caller");
    node->uses_varargs = parser->uses_varargs && !has_parameter(node, "varargs");
    node->uses_kwargs = parser->uses_kwargs && !has_parameter(node, "kwargs");
    parser->loops = loops;
    parser->uses_caller |= caller;
    parser->uses_varargs |= varargs;
    parser->uses_kwargs |= kwargs;
}

static struct spw_ct_node *parse_macro(struct spw_ct_parser *parser, uint32_t line)
{
    struct spw_ct_node *node = spw_ct_node_new(parser, SPW_CT_NODE_MACRO, line);
    const struct spw_ct_token *token = spw_ct_peek(parser);
    if (token->kind != SPW_CT_TOKEN_NAME)
        spw_ct_unexpected(parser, "the macro's name");
    spw_ct_next(parser);
    node->value = spw_ct_text(token->text, token->bytes);
    node->symbol = spw_ct_symbol(parser, token->text, token->bytes);
    parse_signature(parser, node);
    parse_macro_body(parser, node, "endmacro");
    return node;
}

static struct spw_ct_node *parse_call_block(struct spw_ct_parser *parser, uint32_t line)
{
    struct spw_ct_node *node = spw_ct_node_new(parser, SPW_CT_NODE_CALL_BLOCK, line);
    node->value = spw_ct_word("caller");
    if (spw_ct_at_operator(parser, "("))
        parse_signature(parser, node);
    node->first = spw_ct_parse_expression(parser);
    if (node->first->kind != SPW_CT_NODE_CALL)
        spw_ct_parser_fail(parser, line, "TemplateSyntaxError", "expected call");
    parse_macro_body(parser, node, "endcall");
    return node;
}

static struct spw_ct_node *parse_with(struct spw_ct_parser *parser, uint32_t line)
{
    struct spw_ct_node *node = spw_ct_node_new(parser, SPW_CT_NODE_WITH, line);
    for (bool comma = false; !parser->failed && spw_ct_peek(parser)->kind != SPW_CT_TOKEN_BLOCK_END;
         comma = true) {
        if (comma)
            spw_ct_expect_operator(parser, ",");
        spw_ct_append(parser, &node->parameters, spw_ct_parse_target(parser, false, NULL));
        spw_ct_expect_operator(parser, "=");
        spw_ct_append(parser, &node->other, spw_ct_parse_expression(parser));
    }
    parse_inner(parser, &node->list, "endwith");
    return node;
}

static struct spw_ct_node *parse_print(struct spw_ct_parser *parser, uint32_t line)
{
    struct spw_ct_node *group = spw_ct_node_new(parser, SPW_CT_NODE_GROUP, line);
    for (bool comma = false; !parser->failed && spw_ct_peek(parser)->kind != SPW_CT_TOKEN_BLOCK_END;
         comma = true) {
        if (comma)
            spw_ct_expect_operator(parser, ",");
        struct spw_ct_node *node = spw_ct_node_new(parser, SPW_CT_NODE_PRINT, line);
        node->first = spw_ct_parse_expression(parser);
        spw_ct_append(parser, &group->list, node);
    }
    return group;
}

static struct spw_ct_node *parse_statement(struct spw_ct_parser *parser)
{
    static const char *const unsupported[] = {"block",  "extends", "include",
                                              "import", "from",    "autoescape"};
    const struct spw_ct_token *token = spw_ct_peek(parser);
    struct spw_ct_value name = spw_ct_text(token->text, token->bytes);
    uint32_t line = token->line;
    if (token->kind != SPW_CT_TOKEN_NAME)
        spw_ct_unexpected(parser, "a tag's name");
    spw_ct_next(parser);
    if (spw_ct_is(name, "set"))
        return parse_set(parser, line);
    if (spw_ct_is(name, "for"))
        return parse_for(parser, line);
    if (spw_ct_is(name, "if"))
        return parse_if(parser, line);
    if (spw_ct_is(name, "macro"))
        return parse_macro(parser, line);
    if (spw_ct_is(name, "call"))
        return parse_call_block(parser, line);
    if (spw_ct_is(name, "with"))
        return parse_with(parser, line);
    if (spw_ct_is(name, "print"))
        return parse_print(parser, line);
    struct spw_ct_node *node = spw_ct_node_new(parser, SPW_CT_NODE_GROUP, line);
    if (spw_ct_is(name, "filter")) {
        node->kind = SPW_CT_NODE_FILTER_BLOCK;
        node->first = spw_ct_parse_filters(parser, NULL, true);
        parse_inner(parser, &node->list, "endfilter");
    } else if (spw_ct_is(name, "generation")) {
        /* not of Jinja: marks the answer in templates for training */
        parse_inner(parser, &node->list, "endgeneration");
    } else if (spw_ct_is(name, "break") || spw_ct_is(name, "continue")) {
        node->kind = spw_ct_is(name, "break") ? SPW_CT_NODE_BREAK : SPW_CT_NODE_CONTINUE;
        if (!parser->loops)
            spw_ct_parser_fail(parser, line, "SyntaxError", "'%.*s' outside loop", (int)name.bytes,
                               name.text);
    } else {
        for (size_t i = 0; i < SPW_ARRAY_COUNT(unsupported); i++)
            if (spw_ct_is(name, unsupported[i]))
                spw_ct_parser_fail(parser, line, "TemplateSyntaxError",
                                   "tag '%s' is not supported in chat templates", unsupported[i]);
        spw_ct_parser_fail(parser, line, "TemplateSyntaxError", "Encountered unknown tag '%.*s'.",
                           (int)SPW_MIN(name.bytes, 100u), name.text ? name.text : "");
    }
    return node;
}

/* Statements up to a tag whose name is one of `ends`, which is then next; NULL: up to the end. */
static void parse_body(struct spw_ct_parser *parser, struct spw_ct_node_list *out,
                       const char *const *ends)
{
    if (!spw_ct_enter(parser))
        return;
    while (!parser->failed) {
        const struct spw_ct_token *token = spw_ct_next(parser);
        struct spw_ct_node *node;
        if (token->kind == SPW_CT_TOKEN_END) {
            if (ends)
                spw_ct_parser_fail(parser, token->line, "TemplateSyntaxError",
                                   "Unexpected end of template: '%s' is missing", ends[0]);
            break;
        }
        if (token->kind == SPW_CT_TOKEN_DATA) {
            node = spw_ct_node_new(parser, SPW_CT_NODE_DATA, token->line);
            node->value = spw_ct_text(token->text, token->bytes);
        } else if (token->kind == SPW_CT_TOKEN_PRINT_BEGIN) {
            node = spw_ct_node_new(parser, SPW_CT_NODE_PRINT, token->line);
            node->first = spw_ct_parse_tuple(parser, true, NULL);
            settle(parser);
            if (spw_ct_peek(parser)->kind != SPW_CT_TOKEN_PRINT_END)
                spw_ct_unexpected(parser, "'}}'");
            spw_ct_next(parser);
        } else {
            for (size_t i = 0; ends && ends[i]; i++) {
                if (spw_ct_at_name(parser, ends[i])) {
                    parser->nesting--;
                    return;
                }
            }
            node = parse_statement(parser);
            expect_block_end(parser);
        }
        spw_ct_append(parser, out, node);
    }
    parser->nesting--;
}

void spw_ct_parse(struct spw_ct_parser *parser)
{
    struct spw_chat_template *chat_template = parser->chat_template;
    chat_template->symbol_loop = spw_ct_symbol(parser, "loop", 4);
    chat_template->symbol_caller = spw_ct_symbol(parser, "caller", 6);
    chat_template->symbol_varargs = spw_ct_symbol(parser, "varargs", 7);
    chat_template->symbol_kwargs = spw_ct_symbol(parser, "kwargs", 6);
    parse_body(parser, &chat_template->body, NULL);
}
