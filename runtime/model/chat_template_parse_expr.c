/* Tokens to expression nodes. Jinja's order of precedence, loosest first: a if b else c, or, and,
 * not, comparisons, + -, ~, * / // %, **, unary + -, then subscripts, calls, filters and tests.
 */
#include "runtime/model/chat_template_int.h"

#include <string.h>

static struct spw_ct_node *parse_or(struct spw_ct_parser *parser);
static struct spw_ct_node *parse_unary(struct spw_ct_parser *parser, bool with_filters);

static struct spw_ct_node *constant(struct spw_ct_parser *parser, uint32_t line,
                                    struct spw_ct_value value)
{
    struct spw_ct_node *node = spw_ct_node_new(parser, SPW_CT_NODE_CONST, line);
    node->value = value;
    return node;
}

static struct spw_ct_node *two(struct spw_ct_parser *parser, enum spw_ct_node_kind kind,
                               struct spw_ct_node *first, struct spw_ct_node *second)
{
    struct spw_ct_node *node = spw_ct_node_new(parser, kind, first->line);
    node->first = first;
    node->second = second;
    return node;
}

/* Left-deep chains are walked by recursion later, so their length counts too. */
static bool chain(struct spw_ct_parser *parser, unsigned *count)
{
    if (parser->failed)
        return false;
    if (++*count > SPW_CT_CHAIN_MAX) {
        spw_ct_parser_fail_size(parser, spw_ct_peek(parser)->line, "an expression");
        return false;
    }
    return true;
}

static void parse_call_arguments(struct spw_ct_parser *parser, struct spw_ct_node *node)
{
    struct spw_ct_value names[64];
    spw_ct_expect_operator(parser, "(");
    for (bool comma = false; !parser->failed && !spw_ct_at_operator(parser, ")"); comma = true) {
        if (comma && spw_ct_expect_operator(parser, ",") && spw_ct_at_operator(parser, ")"))
            break;
        const struct spw_ct_token *token = spw_ct_peek(parser);
        bool named = token->kind == SPW_CT_TOKEN_NAME && token[1].kind == SPW_CT_TOKEN_OPERATOR &&
                     token[1].bytes == 1 && token[1].text[0] == '=';
        if (node->rest_named || (node->rest && !named && !spw_ct_at_operator(parser, "**"))) {
            spw_ct_unexpected(parser, "the end of the arguments");
        } else if (spw_ct_skip_operator(parser, "*")) {
            node->rest = spw_ct_parse_expression(parser);
        } else if (spw_ct_skip_operator(parser, "**")) {
            node->rest_named = spw_ct_parse_expression(parser);
        } else if (named && node->names_count == SPW_ARRAY_COUNT(names)) {
            spw_ct_parser_fail_size(parser, token->line, "the number of arguments");
        } else if (named) {
            names[node->names_count++] = spw_ct_text(token->text, token->bytes);
            spw_ct_next(parser);
            spw_ct_next(parser);
            spw_ct_append(parser, &node->list, spw_ct_parse_expression(parser));
        } else if (node->names_count) {
            spw_ct_unexpected(parser, "a named argument");
        } else {
            spw_ct_append(parser, &node->list, spw_ct_parse_expression(parser));
        }
    }
    spw_ct_expect_operator(parser, ")");
    for (size_t i = 0; i < node->names_count; i++)
        for (size_t j = 0; j < i; j++)
            if (spw_ct_same_text(names[i], names[j]))
                spw_ct_parser_fail(parser, node->line, "SyntaxError", "keyword argument repeated");
    size_t bytes = node->names_count * sizeof(names[0]);
    node->names = spw_ct_parser_take(parser, bytes);
    if (node->names && bytes)
        memcpy(node->names, names, bytes);
}

static struct spw_ct_node *parse_call(struct spw_ct_parser *parser, struct spw_ct_node *callee)
{
    struct spw_ct_node *node = spw_ct_node_new(parser, SPW_CT_NODE_CALL, spw_ct_peek(parser)->line);
    node->first = callee;
    parse_call_arguments(parser, node);
    return node;
}

static struct spw_ct_node *parse_slice(struct spw_ct_parser *parser)
{
    uint32_t line = spw_ct_peek(parser)->line;
    struct spw_ct_node *start = NULL;
    if (!spw_ct_at_operator(parser, ":")) {
        start = spw_ct_parse_expression(parser);
        if (!spw_ct_at_operator(parser, ":"))
            return start;
    }
    struct spw_ct_node *node = spw_ct_node_new(parser, SPW_CT_NODE_SLICE, line);
    node->first = start;
    spw_ct_next(parser);
    if (!spw_ct_at_operator(parser, ":") && !spw_ct_at_operator(parser, "]") &&
        !spw_ct_at_operator(parser, ","))
        node->second = spw_ct_parse_expression(parser);
    if (spw_ct_skip_operator(parser, ":") && !spw_ct_at_operator(parser, "]") &&
        !spw_ct_at_operator(parser, ","))
        node->third = spw_ct_parse_expression(parser);
    return node;
}

static struct spw_ct_node *parse_subscript(struct spw_ct_parser *parser, struct spw_ct_node *object)
{
    uint32_t line = spw_ct_peek(parser)->line;
    if (spw_ct_skip_operator(parser, ".")) {
        const struct spw_ct_token *token = spw_ct_next(parser);
        if (token->kind == SPW_CT_TOKEN_NAME) {
            struct spw_ct_node *node = spw_ct_node_new(parser, SPW_CT_NODE_ATTRIBUTE, line);
            node->first = object;
            node->value = spw_ct_text(token->text, token->bytes);
            return node;
        }
        if (token->kind != SPW_CT_TOKEN_INT)
            spw_ct_parser_fail(parser, token->line, "TemplateSyntaxError",
                               "expected name or number");
        return two(parser, SPW_CT_NODE_ITEM, object,
                   constant(parser, line, spw_ct_int(token->integer)));
    }
    spw_ct_next(parser);
    struct spw_ct_node *key = NULL;
    for (bool comma = false; !parser->failed && !spw_ct_at_operator(parser, "]"); comma = true) {
        if (comma)
            spw_ct_expect_operator(parser, ",");
        struct spw_ct_node *part = parse_slice(parser);
        if (comma && key && key->kind != SPW_CT_NODE_TUPLE) {
            struct spw_ct_node *tuple = spw_ct_node_new(parser, SPW_CT_NODE_TUPLE, line);
            spw_ct_append(parser, &tuple->list, key);
            key = tuple;
        }
        if (comma && key)
            spw_ct_append(parser, &key->list, part);
        else
            key = part;
    }
    spw_ct_expect_operator(parser, "]");
    return two(parser, SPW_CT_NODE_ITEM, object,
               key ? key : spw_ct_node_new(parser, SPW_CT_NODE_TUPLE, line));
}

static struct spw_ct_node *parse_postfix(struct spw_ct_parser *parser, struct spw_ct_node *node)
{
    for (unsigned count = 0; chain(parser, &count);) {
        if (spw_ct_at_operator(parser, ".") || spw_ct_at_operator(parser, "["))
            node = parse_subscript(parser, node);
        else if (spw_ct_at_operator(parser, "("))
            node = parse_call(parser, node);
        else
            break;
    }
    return node;
}

static struct spw_ct_node *parse_list(struct spw_ct_parser *parser)
{
    struct spw_ct_node *node = spw_ct_node_new(parser, SPW_CT_NODE_LIST, spw_ct_next(parser)->line);
    for (bool comma = false; !parser->failed && !spw_ct_at_operator(parser, "]"); comma = true) {
        if (comma && spw_ct_expect_operator(parser, ",") && spw_ct_at_operator(parser, "]"))
            break;
        spw_ct_append(parser, &node->list, spw_ct_parse_expression(parser));
    }
    spw_ct_expect_operator(parser, "]");
    return node;
}

static struct spw_ct_node *parse_dict(struct spw_ct_parser *parser)
{
    struct spw_ct_node *node = spw_ct_node_new(parser, SPW_CT_NODE_DICT, spw_ct_next(parser)->line);
    for (bool comma = false; !parser->failed && !spw_ct_at_operator(parser, "}"); comma = true) {
        if (comma && spw_ct_expect_operator(parser, ",") && spw_ct_at_operator(parser, "}"))
            break;
        spw_ct_append(parser, &node->list, spw_ct_parse_expression(parser));
        spw_ct_expect_operator(parser, ":");
        spw_ct_append(parser, &node->list, spw_ct_parse_expression(parser));
    }
    spw_ct_expect_operator(parser, "}");
    return node;
}

static struct spw_ct_node *parse_strings(struct spw_ct_parser *parser)
{
    const struct spw_ct_token *first = spw_ct_next(parser);
    size_t bytes = first->bytes;
    size_t more = 0;
    while (first[1 + more].kind == SPW_CT_TOKEN_STRING)
        bytes += first[1 + more++].bytes;
    if (!more)
        return constant(parser, first->line, spw_ct_text(first->text, first->bytes));
    char *text = spw_ct_parser_take(parser, bytes);
    size_t used = 0;
    for (size_t i = 0; i <= more; i++) {
        if (text && first[i].bytes)
            memcpy(text + used, first[i].text, first[i].bytes);
        used += first[i].bytes;
        if (i > 0)
            spw_ct_next(parser);
    }
    return constant(parser, first->line, spw_ct_text(text, text ? bytes : 0));
}

static struct spw_ct_node *parse_name(struct spw_ct_parser *parser, bool fields)
{
    static const char *const words[] = {"true", "True", "false", "False", "none", "None"};
    const struct spw_ct_token *token = spw_ct_next(parser);
    struct spw_ct_value name = spw_ct_text(token->text, token->bytes);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(words); i++)
        if (spw_ct_is(name, words[i]))
            return constant(parser, token->line, i < 4 ? spw_ct_bool(i < 2) : spw_ct_none());
    bool field = fields && spw_ct_at_operator(parser, ".");
    struct spw_ct_node *node =
        spw_ct_node_new(parser, field ? SPW_CT_NODE_FIELD : SPW_CT_NODE_NAME, token->line);
    node->symbol = spw_ct_symbol(parser, token->text, token->bytes);
    node->value = name;
    parser->uses_caller |= spw_ct_is(name, "caller");
    parser->uses_varargs |= spw_ct_is(name, "varargs");
    parser->uses_kwargs |= spw_ct_is(name, "kwargs");
    if (field) {
        spw_ct_next(parser);
        const struct spw_ct_token *attribute = spw_ct_peek(parser);
        if (attribute->kind != SPW_CT_TOKEN_NAME)
            spw_ct_unexpected(parser, "a name");
        node->value = spw_ct_text(attribute->text, attribute->bytes);
        spw_ct_next(parser);
    }
    return node;
}

static struct spw_ct_node *parse_tuple_of(struct spw_ct_parser *parser, bool condition,
                                          bool primaries, bool fields, bool parentheses,
                                          const char *end_name);

static struct spw_ct_node *parse_primary(struct spw_ct_parser *parser, bool fields)
{
    const struct spw_ct_token *token = spw_ct_peek(parser);
    struct spw_ct_node *node = NULL;
    if (!spw_ct_enter(parser))
        return constant(parser, token->line, spw_ct_none());
    if (token->kind == SPW_CT_TOKEN_NAME) {
        node = parse_name(parser, fields);
    } else if (token->kind == SPW_CT_TOKEN_STRING) {
        node = parse_strings(parser);
    } else if (token->kind == SPW_CT_TOKEN_INT || token->kind == SPW_CT_TOKEN_FLOAT) {
        spw_ct_next(parser);
        node = constant(parser, token->line,
                        token->kind == SPW_CT_TOKEN_INT ? spw_ct_int(token->integer)
                                                        : spw_ct_float(token->real));
    } else if (spw_ct_skip_operator(parser, "(")) {
        node = parse_tuple_of(parser, true, false, false, true, NULL);
        spw_ct_expect_operator(parser, ")");
    } else if (spw_ct_at_operator(parser, "[")) {
        node = parse_list(parser);
    } else if (spw_ct_at_operator(parser, "{")) {
        node = parse_dict(parser);
    } else {
        spw_ct_unexpected(parser, "an expression");
        node = constant(parser, token->line, spw_ct_none());
    }
    parser->nesting--;
    return node;
}

/* The name of a filter or test. Dots belong to it, though no known one has any. */
static struct spw_ct_value parse_callable_name(struct spw_ct_parser *parser)
{
    struct spw_ct_value name = spw_ct_word("");
    do {
        const struct spw_ct_token *token = spw_ct_next(parser);
        if (token->kind != SPW_CT_TOKEN_NAME) {
            spw_ct_parser_fail(parser, token->line, "TemplateSyntaxError",
                               "expected the name of a filter or test, found '%.*s'",
                               (int)SPW_MIN(token->bytes, 60u), token->text);
            return name;
        }
        char *text = spw_ct_parser_take(parser, name.bytes + 1 + token->bytes);
        if (!text)
            return name;
        size_t used = name.bytes;
        memcpy(text, name.text, used);
        if (used)
            text[used++] = '.';
        memcpy(text + used, token->text, token->bytes);
        name = spw_ct_text(text, used + token->bytes);
    } while (spw_ct_skip_operator(parser, ".") && name.bytes < 200);
    return name;
}

static void resolve(struct spw_ct_parser *parser, struct spw_ct_node *node)
{
    bool test = node->kind == SPW_CT_NODE_TEST;
    node->function = test ? spw_ct_test_find(node->value) : spw_ct_filter_find(node->value);
    if (!node->function && !parser->unknown)
        parser->unknown = node;
}

struct spw_ct_node *spw_ct_parse_filters(struct spw_ct_parser *parser, struct spw_ct_node *operand,
                                         bool start_inline)
{
    for (unsigned count = 0;
         chain(parser, &count) && (start_inline || spw_ct_at_operator(parser, "|"));) {
        if (!start_inline)
            spw_ct_next(parser);
        struct spw_ct_node *node =
            spw_ct_node_new(parser, SPW_CT_NODE_FILTER, spw_ct_peek(parser)->line);
        node->first = operand;
        node->value = parse_callable_name(parser);
        if (spw_ct_at_operator(parser, "("))
            parse_call_arguments(parser, node);
        resolve(parser, node);
        operand = node;
        start_inline = false;
    }
    return operand;
}

static bool starts_test_argument(const struct spw_ct_parser *parser)
{
    const struct spw_ct_token *token = spw_ct_peek(parser);
    if (token->kind == SPW_CT_TOKEN_NAME)
        return !spw_ct_at_name(parser, "else") && !spw_ct_at_name(parser, "or") &&
               !spw_ct_at_name(parser, "and");
    return token->kind == SPW_CT_TOKEN_STRING || token->kind == SPW_CT_TOKEN_INT ||
           token->kind == SPW_CT_TOKEN_FLOAT || spw_ct_at_operator(parser, "[") ||
           spw_ct_at_operator(parser, "{");
}

static struct spw_ct_node *parse_test(struct spw_ct_parser *parser, struct spw_ct_node *operand)
{
    uint32_t line = spw_ct_next(parser)->line;
    bool negated = spw_ct_skip_name(parser, "not");
    struct spw_ct_node *node = spw_ct_node_new(parser, SPW_CT_NODE_TEST, line);
    node->first = operand;
    node->value = parse_callable_name(parser);
    if (spw_ct_at_operator(parser, "(")) {
        parse_call_arguments(parser, node);
    } else if (starts_test_argument(parser)) {
        if (spw_ct_at_name(parser, "is"))
            spw_ct_parser_fail(parser, line, "TemplateSyntaxError",
                               "You cannot chain multiple tests with is");
        spw_ct_append(parser, &node->list, parse_postfix(parser, parse_primary(parser, false)));
    }
    resolve(parser, node);
    return negated ? two(parser, SPW_CT_NODE_NOT, node, NULL) : node;
}

static struct spw_ct_node *parse_unary(struct spw_ct_parser *parser, bool with_filters)
{
    struct spw_ct_node *node;
    bool minus = spw_ct_at_operator(parser, "-");
    if (minus || spw_ct_at_operator(parser, "+")) {
        uint32_t line = spw_ct_next(parser)->line;
        node = spw_ct_node_new(parser, minus ? SPW_CT_NODE_NEGATE : SPW_CT_NODE_PLUS, line);
        if (spw_ct_enter(parser)) {
            node->first = parse_unary(parser, false);
            parser->nesting--;
        }
    } else {
        node = parse_primary(parser, false);
    }
    node = parse_postfix(parser, node);
    for (unsigned count = 0; with_filters && chain(parser, &count);) {
        if (spw_ct_at_operator(parser, "|"))
            node = spw_ct_parse_filters(parser, node, false);
        else if (spw_ct_at_name(parser, "is"))
            node = parse_test(parser, node);
        else if (spw_ct_at_operator(parser, "("))
            node = parse_call(parser, node);
        else
            break;
    }
    return node;
}

struct operator_row {
    const char *text;
    enum spw_ct_operator operation;
    int level;
};

/* Level 0: + and -; 1: ~ (handled apart); 2: * / // %; 3: **. */
static struct spw_ct_node *parse_math(struct spw_ct_parser *parser, int level)
{
    static const struct operator_row rows[] = {
        {"+", SPW_CT_ADD, 0},    {"-", SPW_CT_SUBTRACT, 0},      {"*", SPW_CT_MULTIPLY, 2},
        {"/", SPW_CT_DIVIDE, 2}, {"//", SPW_CT_FLOOR_DIVIDE, 2}, {"%", SPW_CT_MODULO, 2},
        {"**", SPW_CT_POWER, 3},
    };
    if (level == 4)
        return parse_unary(parser, true);
    struct spw_ct_node *node = parse_math(parser, level + 1);
    if (level == 1 && spw_ct_at_operator(parser, "~")) {
        struct spw_ct_node *concat = spw_ct_node_new(parser, SPW_CT_NODE_CONCAT, node->line);
        spw_ct_append(parser, &concat->list, node);
        while (!parser->failed && spw_ct_skip_operator(parser, "~"))
            spw_ct_append(parser, &concat->list, parse_math(parser, 2));
        return concat;
    }
    for (unsigned count = 0; chain(parser, &count);) {
        const struct operator_row *row = NULL;
        for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++)
            if (rows[i].level == level && spw_ct_at_operator(parser, rows[i].text))
                row = &rows[i];
        if (!row)
            break;
        spw_ct_next(parser);
        node = two(parser, SPW_CT_NODE_BINARY, node, parse_math(parser, level + 1));
        node->operation = row->operation;
    }
    return node;
}

static struct spw_ct_node *parse_compare(struct spw_ct_parser *parser)
{
    static const struct operator_row rows[] = {
        {"==", SPW_CT_EQUAL, 0},      {"!=", SPW_CT_NOT_EQUAL, 0}, {"<", SPW_CT_LESS, 0},
        {"<=", SPW_CT_LESS_EQUAL, 0}, {">", SPW_CT_GREATER, 0},    {">=", SPW_CT_GREATER_EQUAL, 0},
    };
    struct spw_ct_node *first = parse_math(parser, 0);
    struct spw_ct_node *compare = NULL;
    while (!parser->failed) {
        int operation = -1;
        for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++)
            if (spw_ct_at_operator(parser, rows[i].text))
                operation = (int)rows[i].operation;
        const struct spw_ct_token *token = spw_ct_peek(parser);
        if (spw_ct_at_name(parser, "in")) {
            operation = SPW_CT_IN;
        } else if (spw_ct_at_name(parser, "not") && token[1].kind == SPW_CT_TOKEN_NAME &&
                   spw_ct_is(spw_ct_text(token[1].text, token[1].bytes), "in")) {
            operation = SPW_CT_NOT_IN;
            spw_ct_next(parser);
        }
        if (operation < 0)
            break;
        spw_ct_next(parser);
        if (!compare) {
            compare = spw_ct_node_new(parser, SPW_CT_NODE_COMPARE, first->line);
            compare->first = first;
        }
        struct spw_ct_node *operand = spw_ct_node_new(parser, SPW_CT_NODE_OPERAND, token->line);
        operand->operation = (enum spw_ct_operator)operation;
        operand->first = parse_math(parser, 0);
        spw_ct_append(parser, &compare->list, operand);
    }
    return compare ? compare : first;
}

static struct spw_ct_node *parse_not(struct spw_ct_parser *parser)
{
    if (!spw_ct_at_name(parser, "not"))
        return parse_compare(parser);
    struct spw_ct_node *node = spw_ct_node_new(parser, SPW_CT_NODE_NOT, spw_ct_next(parser)->line);
    if (spw_ct_enter(parser)) {
        node->first = parse_not(parser);
        parser->nesting--;
    }
    return node;
}

static struct spw_ct_node *parse_or(struct spw_ct_parser *parser)
{
    struct spw_ct_node *left = NULL;
    for (unsigned ors = 0; chain(parser, &ors);) {
        struct spw_ct_node *side = parse_not(parser);
        for (unsigned ands = 0; chain(parser, &ands) && spw_ct_skip_name(parser, "and");)
            side = two(parser, SPW_CT_NODE_AND, side, parse_not(parser));
        left = left ? two(parser, SPW_CT_NODE_OR, left, side) : side;
        if (!spw_ct_skip_name(parser, "or"))
            break;
    }
    return left ? left : constant(parser, 0, spw_ct_none());
}

struct spw_ct_node *spw_ct_parse_expression(struct spw_ct_parser *parser)
{
    if (!spw_ct_enter(parser))
        return constant(parser, 0, spw_ct_none());
    const struct spw_ct_node *unknown = parser->unknown;
    struct spw_ct_node *node = parse_or(parser);
    for (unsigned count = 0; chain(parser, &count) && spw_ct_skip_name(parser, "if");) {
        struct spw_ct_node *test = parse_or(parser);
        node = two(parser, SPW_CT_NODE_CONDITION, test, node);
        if (spw_ct_skip_name(parser, "else"))
            node->third = spw_ct_parse_expression(parser);
        /* in a condition, unknown filters fail only when reached */
        parser->unknown = unknown;
    }
    parser->nesting--;
    return node;
}

static struct spw_ct_node *parse_tuple_of(struct spw_ct_parser *parser, bool condition,
                                          bool primaries, bool fields, bool parentheses,
                                          const char *end_name)
{
    uint32_t line = spw_ct_peek(parser)->line;
    struct spw_ct_node *tuple = spw_ct_node_new(parser, SPW_CT_NODE_TUPLE, line);
    bool comma = false;
    while (!parser->failed) {
        enum spw_ct_token_kind kind = spw_ct_peek(parser)->kind;
        if (kind == SPW_CT_TOKEN_PRINT_END || kind == SPW_CT_TOKEN_BLOCK_END ||
            spw_ct_at_operator(parser, ")") || (end_name && spw_ct_at_name(parser, end_name)))
            break;
        struct spw_ct_node *item = primaries   ? parse_primary(parser, fields)
                                   : condition ? spw_ct_parse_expression(parser)
                                               : parse_or(parser);
        spw_ct_append(parser, &tuple->list, item);
        if (!spw_ct_skip_operator(parser, ","))
            break;
        comma = true;
    }
    if (!comma && tuple->list.count == 1)
        return tuple->list.items[0];
    if (!comma && !parentheses)
        spw_ct_unexpected(parser, "an expression");
    return tuple;
}

struct spw_ct_node *spw_ct_parse_tuple(struct spw_ct_parser *parser, bool condition,
                                       const char *end_name)
{
    return parse_tuple_of(parser, condition, false, false, false, end_name);
}

static void check_target(struct spw_ct_parser *parser, const struct spw_ct_node *node)
{
    if (node->kind == SPW_CT_NODE_TUPLE || node->kind == SPW_CT_NODE_LIST) {
        for (size_t i = 0; i < node->list.count; i++)
            check_target(parser, node->list.items[i]);
    } else if (node->kind != SPW_CT_NODE_NAME && node->kind != SPW_CT_NODE_FIELD) {
        spw_ct_parser_fail(parser, node->line, "TemplateSyntaxError",
                           "can't assign to what is not a name");
    }
}

struct spw_ct_node *spw_ct_parse_target(struct spw_ct_parser *parser, bool fields,
                                        const char *end_name)
{
    struct spw_ct_node *node = parse_tuple_of(parser, false, true, fields, false, end_name);
    if (!parser->failed)
        check_target(parser, node);
    return node;
}
