/* chat_template_int.h - shared by the files of the chat template interpreter.
 *
 * Room:      runtime/model (private)
 * Threads:   a compiled template is read only; a spw_ct_run belongs to one rendering
 * Ownership: nodes and texts of a template live in its heap; values live in the heap of the run, or
 *            point into the template or the JSON variables, which outlive the run
 * Errors:    sticky: the first failure is kept in the run (or parser), later work is skipped and
 *            yields "undefined"; whoever loops looks at `failed`
 *
 * Known differences from Jinja2: integers are 64 bits; loop conditions, map, select and the like
 * work at once, not lazily; a variable that an outer scope gives stays visible before an
 * unconditional "set" of its name in the same scope; "safe" and "escape" give plain texts; slicing
 * a constant that has no items fails; include, import, block and extends are refused.
 *
 * Files in reading order: heap, lex, parse, parse_expr (source to tree); value, text, unicode,
 * number, format, json, time (Python's values); attr, method, call, filter, filter_list,
 * test (what can be called by name); eval, exec (the tree walk); chat_template.c (the public
 * functions).
 */
#ifndef SPW_CHAT_TEMPLATE_INT_H
#define SPW_CHAT_TEMPLATE_INT_H

#include "runtime/base/arena.h"
#include "runtime/model/chat_template.h"

/* Bounds. A template or conversation beyond them is SPW_TOO_LARGE, never a crash or a hang.
 * The depths are such that a rendering gets by with 512 KiB of stack.
 */
#define SPW_CT_SOURCE_BYTES_MAX ((size_t)1 << 20) /* of one template */
#define SPW_CT_NESTING_MAX      100u              /* brackets and blocks inside each other */
#define SPW_CT_CHAIN_MAX        1000u             /* operators in one unbracketed chain */
#define SPW_CT_SYMBOLS_MAX      2000u             /* different names of variables */
#define SPW_CT_STEPS_MAX        20000000u         /* nodes evaluated, plus one per 64 bytes made */
#define SPW_CT_DEPTH_MAX        1200u             /* nodes being evaluated inside each other */
#define SPW_CT_CALLS_MAX        100u              /* macros and recursive loops in each other */
#define SPW_CT_DATA_DEPTH_MAX   200u              /* lists and objects inside each other */
#define SPW_CT_HEAP_BYTES_MAX   ((size_t)256 << 20)
#define SPW_CT_RANGE_MAX        100000 /* as Jinja's sandbox */

/* ---- memory ---- */

struct spw_ct_chunk;

/* Arenas in a row; everything is freed at once. */
struct spw_ct_heap {
    struct spw_ct_chunk *chunks;
    size_t bytes_used;
    size_t bytes_max;
};

void spw_ct_heap_done(struct spw_ct_heap *heap);
/* Zeroed, aligned to 16; NULL when bytes_max is passed or memory is out. */
void *spw_ct_heap_take(struct spw_ct_heap *heap, size_t bytes);

/* ---- values ---- */

enum spw_ct_kind {
    SPW_CT_MISSING, /* an argument that was not given; never seen by a template */
    SPW_CT_UNDEFINED,
    SPW_CT_NONE,
    SPW_CT_BOOL,
    SPW_CT_INT,
    SPW_CT_FLOAT,
    SPW_CT_STRING,
    SPW_CT_LIST,
    SPW_CT_TUPLE,
    SPW_CT_DICT,
    SPW_CT_RANGE,
    SPW_CT_VIEW,     /* of a dict: keys(), values(), items() */
    SPW_CT_ITERATOR, /* what Python makes lazily; can be walked once */
    SPW_CT_NAMESPACE,
    SPW_CT_MACRO,
    SPW_CT_FUNCTION,
    SPW_CT_METHOD,
    SPW_CT_LOOP,
};

struct spw_ct_value {
    enum spw_ct_kind kind;
    uint32_t extra; /* VIEW: enum spw_ct_view */
    union {
        bool truth;
        int64_t integer;
        double real;
        const char *text; /* UTF-8, `bytes` long, no closing zero */
        const struct spw_ct_list *list;
        const struct spw_ct_dict *dict;
        const struct spw_ct_range *range;
        const struct spw_ct_undefined *undefined;
        const struct spw_ct_function *function;
        const struct spw_ct_method *method;
        const struct spw_ct_macro *macro;
        struct spw_ct_dict *names; /* NAMESPACE: the one thing that templates may change */
        struct spw_ct_iterator *iterator;
        struct spw_ct_loop *loop;
    };
    size_t bytes;
};

enum spw_ct_view { SPW_CT_VIEW_KEYS, SPW_CT_VIEW_VALUES, SPW_CT_VIEW_ITEMS };

struct spw_ct_list {
    struct spw_ct_value *items;
    size_t count;
    size_t capacity;
};

struct spw_ct_pair {
    struct spw_ct_value key;
    struct spw_ct_value value;
};

/* In order of insertion. */
struct spw_ct_dict {
    struct spw_ct_pair *pairs;
    size_t count;
    size_t capacity;
};

struct spw_ct_range {
    int64_t start;
    int64_t stop;
    int64_t step;
    int64_t count;
};

struct spw_ct_iterator {
    const struct spw_ct_list *items;
    size_t at;
};

/* Why a value is undefined: a hint, or "name is undefined", or "object has no attribute name". */
struct spw_ct_undefined {
    struct spw_ct_value name;
    struct spw_ct_value object; /* MISSING: a variable */
    const char *hint;           /* NULL or the whole text */
    bool unsafe;                /* SecurityError instead of UndefinedError */
};

struct spw_ct_args {
    const struct spw_ct_value *values;
    size_t count;
    const struct spw_ct_dict *named; /* NULL or empty: none */
};

struct spw_ct_run;
typedef struct spw_ct_value spw_ct_call_fn(struct spw_ct_run *run, struct spw_ct_value self,
                                           const struct spw_ct_args *args);

/* A filter, test, method or global. With parameters other than "*", `call` sees one value for each
 * parameter, MISSING where none was given, and no named ones.
 */
struct spw_ct_function {
    const char *name;
    spw_ct_call_fn *call;   /* NULL: known to Jinja, not supported here */
    const char *parameters; /* "width,first"; "*": any */
    size_t required;        /* the first so many must be given */
};

struct spw_ct_method {
    const struct spw_ct_function *function;
    struct spw_ct_value self;
};

struct spw_ct_macro {
    const struct spw_ct_node *node;
    struct spw_ct_scope *scope;
};

struct spw_ct_loop {
    const struct spw_ct_node *node;
    struct spw_ct_scope *scope; /* around the loop */
    const struct spw_ct_list *items;
    size_t index;
    size_t depth;
    struct spw_ct_value changed; /* tuple of the last changed() call, MISSING before */
};

/* ---- the tree ---- */

enum spw_ct_token_kind {
    SPW_CT_TOKEN_END,
    SPW_CT_TOKEN_DATA,
    SPW_CT_TOKEN_PRINT_BEGIN,
    SPW_CT_TOKEN_PRINT_END,
    SPW_CT_TOKEN_BLOCK_BEGIN,
    SPW_CT_TOKEN_BLOCK_END,
    SPW_CT_TOKEN_NAME,
    SPW_CT_TOKEN_STRING,
    SPW_CT_TOKEN_INT,
    SPW_CT_TOKEN_FLOAT,
    SPW_CT_TOKEN_OPERATOR,
};

struct spw_ct_token {
    enum spw_ct_token_kind kind;
    uint32_t line;
    const char *text; /* data, name, unescaped string, operator */
    size_t bytes;
    int64_t integer;
    double real;
};

enum spw_ct_node_kind {
    /* expressions */
    SPW_CT_NODE_CONST,
    SPW_CT_NODE_NAME,
    SPW_CT_NODE_TUPLE,
    SPW_CT_NODE_LIST,
    SPW_CT_NODE_DICT, /* list: key, value, key, value ... */
    SPW_CT_NODE_CONDITION,
    SPW_CT_NODE_OR,
    SPW_CT_NODE_AND,
    SPW_CT_NODE_NOT,
    SPW_CT_NODE_COMPARE, /* first, then list of OPERAND */
    SPW_CT_NODE_OPERAND,
    SPW_CT_NODE_CONCAT,
    SPW_CT_NODE_BINARY,
    SPW_CT_NODE_NEGATE,
    SPW_CT_NODE_PLUS,
    SPW_CT_NODE_ATTRIBUTE,
    SPW_CT_NODE_ITEM,
    SPW_CT_NODE_SLICE, /* only as `second` of ITEM, or inside its tuple */
    SPW_CT_NODE_CALL,
    SPW_CT_NODE_FILTER,
    SPW_CT_NODE_TEST,
    SPW_CT_NODE_FIELD, /* namespace.name as a target */
    /* statements */
    SPW_CT_NODE_DATA,
    SPW_CT_NODE_PRINT,
    SPW_CT_NODE_IF, /* list: body; other: else */
    SPW_CT_NODE_FOR,
    SPW_CT_NODE_SET,
    SPW_CT_NODE_SET_BLOCK,
    SPW_CT_NODE_MACRO,
    SPW_CT_NODE_CALL_BLOCK,
    SPW_CT_NODE_FILTER_BLOCK,
    SPW_CT_NODE_WITH,
    SPW_CT_NODE_GROUP, /* the statements of its list, in the same scope */
    SPW_CT_NODE_BREAK,
    SPW_CT_NODE_CONTINUE,
};

enum spw_ct_operator {
    SPW_CT_ADD,
    SPW_CT_SUBTRACT,
    SPW_CT_MULTIPLY,
    SPW_CT_DIVIDE,
    SPW_CT_FLOOR_DIVIDE,
    SPW_CT_MODULO,
    SPW_CT_POWER,
    SPW_CT_EQUAL,
    SPW_CT_NOT_EQUAL,
    SPW_CT_LESS,
    SPW_CT_LESS_EQUAL,
    SPW_CT_GREATER,
    SPW_CT_GREATER_EQUAL,
    SPW_CT_IN,
    SPW_CT_NOT_IN,
};

struct spw_ct_node_list {
    struct spw_ct_node **items;
    size_t count;
};

/* What first, second, third, list and other are, by kind:
 * CONDITION: test, then, else or NULL. ITEM: object, key. SLICE: start, stop, step, each or NULL.
 * CALL, FILTER, TEST: callee or operand (NULL in a filter block), list = arguments, names, rest,
 * rest_named. FOR: target, iterable, condition or NULL; list = body, other = else. SET: target,
 * value. SET_BLOCK: target, filter or NULL; list = body. MACRO, CALL_BLOCK: list = body,
 * parameters, other = defaults (of the last parameters), first = call (CALL_BLOCK). FILTER_BLOCK:
 * first = filter. WITH: parameters = targets, other = values, list = body.
 */
struct spw_ct_node {
    enum spw_ct_node_kind kind;
    uint32_t line;
    uint32_t symbol; /* NAME, FIELD, MACRO */
    enum spw_ct_operator operation;
    bool recursive; /* FOR */
    bool closes;    /* FOR: the body defines macros, which keep its scope */
    bool uses_caller, uses_varargs, uses_kwargs; /* MACRO, CALL_BLOCK */
    struct spw_ct_value value;                   /* CONST, DATA; else the name of what is meant */
    const struct spw_ct_function *function; /* FILTER, TEST; NULL: unknown, fails when reached */
    struct spw_ct_node *first, *second, *third;
    struct spw_ct_node *rest, *rest_named; /* *args, **kwargs */
    struct spw_ct_node_list list, other, parameters;
    struct spw_ct_value *names; /* of the last names_count arguments in list */
    size_t names_count;
};

struct spw_chat_template {
    struct spw_ct_heap heap;
    struct spw_ct_node_list body;
    struct spw_ct_value *symbols; /* names, by symbol */
    uint32_t symbols_count;
    uint32_t symbol_loop, symbol_caller, symbol_varargs, symbol_kwargs;
};

/* ---- source to tree ---- */

struct spw_ct_parser {
    struct spw_chat_template *chat_template;
    struct spw_ct_heap *heap;
    struct spw_error *error;
    enum spw_status status;
    struct spw_ct_token *tokens;
    size_t tokens_count, tokens_capacity;
    size_t at;
    uint32_t symbols_capacity;
    unsigned nesting;
    unsigned loops;    /* around this point, inside the innermost macro */
    unsigned closures; /* macros and call blocks seen */
    /* The first filter or test in this expression that does not exist. It is an error at once but
     * inside of conditions, where it is one only when reached.
     */
    const struct spw_ct_node *unknown;
    bool soft; /* inside the body of an "if" */
    bool uses_caller, uses_varargs, uses_kwargs;
    bool failed;
    struct spw_ct_node spare; /* stands in for a node when memory is out */
};

void spw_ct_parser_fail(struct spw_ct_parser *parser, uint32_t line, const char *kind,
                        const char *format, ...) SPW_PRINTF(4, 5);
void spw_ct_parser_fail_size(struct spw_ct_parser *parser, uint32_t line, const char *what);
void *spw_ct_parser_take(struct spw_ct_parser *parser, size_t bytes);
/* All tokens of the source, an END last. `source` must outlive the template's nodes. */
void spw_ct_lex(struct spw_ct_parser *parser, const char *source, size_t bytes);
void spw_ct_parse(struct spw_ct_parser *parser);

/* between the two parser files */
const struct spw_ct_token *spw_ct_peek(const struct spw_ct_parser *parser);
const struct spw_ct_token *spw_ct_next(struct spw_ct_parser *parser);
bool spw_ct_at_operator(const struct spw_ct_parser *parser, const char *text);
bool spw_ct_at_name(const struct spw_ct_parser *parser, const char *text);
bool spw_ct_skip_operator(struct spw_ct_parser *parser, const char *text);
bool spw_ct_skip_name(struct spw_ct_parser *parser, const char *text);
bool spw_ct_expect_operator(struct spw_ct_parser *parser, const char *text);
bool spw_ct_enter(struct spw_ct_parser *parser); /* one nesting deeper; false: failed */
struct spw_ct_node *spw_ct_node_new(struct spw_ct_parser *parser, enum spw_ct_node_kind kind,
                                    uint32_t line);
uint32_t spw_ct_symbol(struct spw_ct_parser *parser, const char *text, size_t bytes);
void spw_ct_append(struct spw_ct_parser *parser, struct spw_ct_node_list *list,
                   struct spw_ct_node *node);
void spw_ct_unexpected(struct spw_ct_parser *parser, const char *wanted);
struct spw_ct_node *spw_ct_parse_expression(struct spw_ct_parser *parser);
/* An expression, or a tuple where commas follow. condition: with "a if b else c".
 * end_name: a name that ends it, or NULL.
 */
struct spw_ct_node *spw_ct_parse_tuple(struct spw_ct_parser *parser, bool condition,
                                       const char *end_name);
struct spw_ct_node *spw_ct_parse_target(struct spw_ct_parser *parser, bool fields,
                                        const char *end_name);
struct spw_ct_node *spw_ct_parse_filters(struct spw_ct_parser *parser, struct spw_ct_node *operand,
                                         bool start_inline);

/* ---- rendering ---- */

struct spw_ct_binding {
    struct spw_ct_binding *next;
    struct spw_ct_value value;
    uint32_t symbol;
};

struct spw_ct_scope {
    struct spw_ct_scope *parent;
    struct spw_ct_binding *first;
};

struct spw_ct_run {
    const struct spw_chat_template *chat_template;
    struct spw_ct_heap heap;
    struct spw_ct_value *context; /* by symbol; MISSING: not given */
    struct spw_ct_binding *free_bindings;
    struct spw_error *error;
    enum spw_status status;
    uint64_t now_seconds;
    uint64_t steps_left;
    unsigned depth;
    unsigned calls;
    uint32_t line;
    bool failed;
};

/* spw_chat_template_render with another bound on the steps (tests, fuzzing). */
enum spw_status spw_ct_render(const struct spw_chat_template *chat_template,
                              const json_t *variables, uint64_t now_seconds, uint64_t steps_max,
                              struct spw_buffer *out_text, struct spw_error *error);

/* "kind: text (chat template line N)"; SPW_INVALID. Returns undefined. */
struct spw_ct_value spw_ct_fail(struct spw_ct_run *run, const char *kind, const char *format, ...)
    SPW_PRINTF(3, 4);
struct spw_ct_value spw_ct_fail_size(struct spw_ct_run *run, const char *what);
struct spw_ct_value spw_ct_fail_undefined(struct spw_ct_run *run, struct spw_ct_value value);
void *spw_ct_take(struct spw_ct_run *run, size_t bytes); /* NULL: failed */
bool spw_ct_charge(struct spw_ct_run *run, uint64_t steps);
/* Close a text that was collected outside the run's heap: move it in, free the buffer. */
struct spw_ct_value spw_ct_collect(struct spw_ct_run *run, struct spw_buffer *buffer);
void spw_ct_buffer_init(struct spw_buffer *buffer);

/* value.c */
struct spw_ct_value spw_ct_none(void);
struct spw_ct_value spw_ct_bool(bool truth);
struct spw_ct_value spw_ct_int(int64_t integer);
struct spw_ct_value spw_ct_float(double real);
struct spw_ct_value spw_ct_text(const char *text, size_t bytes); /* borrowed */
struct spw_ct_value spw_ct_word(const char *text);               /* borrowed, with a zero */
struct spw_ct_value spw_ct_copy(struct spw_ct_run *run, const char *text, size_t bytes);
struct spw_ct_value spw_ct_undefined(struct spw_ct_run *run, struct spw_ct_value object,
                                     struct spw_ct_value name);
struct spw_ct_value spw_ct_undefined_hint(struct spw_ct_run *run, const char *hint);
struct spw_ct_list *spw_ct_list_new(struct spw_ct_run *run, size_t capacity);
void spw_ct_list_add(struct spw_ct_run *run, struct spw_ct_list *list, struct spw_ct_value value);
struct spw_ct_value spw_ct_from_list(const struct spw_ct_list *list, enum spw_ct_kind kind);
struct spw_ct_value spw_ct_iterator(struct spw_ct_run *run, const struct spw_ct_list *list);
struct spw_ct_value spw_ct_pair(struct spw_ct_run *run, struct spw_ct_value a,
                                struct spw_ct_value b);
struct spw_ct_dict *spw_ct_dict_new(struct spw_ct_run *run, size_t capacity);
void spw_ct_dict_set(struct spw_ct_run *run, struct spw_ct_dict *dict, struct spw_ct_value key,
                     struct spw_ct_value value);
const struct spw_ct_value *spw_ct_dict_find(struct spw_ct_run *run, const struct spw_ct_dict *dict,
                                            struct spw_ct_value key);
bool spw_ct_hashable(struct spw_ct_value value);
bool spw_ct_is(struct spw_ct_value value, const char *text);
bool spw_ct_same_text(struct spw_ct_value a, struct spw_ct_value b);
bool spw_ct_is_number(struct spw_ct_value value); /* bool, int, float */
bool spw_ct_is_integral(struct spw_ct_value value, int64_t *out);
double spw_ct_real(struct spw_ct_value value);
const char *spw_ct_type_name(struct spw_ct_value value);
bool spw_ct_truth(struct spw_ct_value value);
bool spw_ct_equal(struct spw_ct_run *run, struct spw_ct_value a, struct spw_ct_value b);
/* <0, 0, >0, or 2 when one is not a number; `sign` names the operator in the TypeError. */
int spw_ct_compare(struct spw_ct_run *run, struct spw_ct_value a, struct spw_ct_value b,
                   const char *sign);
bool spw_ct_contains(struct spw_ct_run *run, struct spw_ct_value item, struct spw_ct_value in);
bool spw_ct_iterable(struct spw_ct_value value);
/* What walking the value yields, or NULL and failed. Uses up an iterator. */
const struct spw_ct_list *spw_ct_iterate(struct spw_ct_run *run, struct spw_ct_value value);
/* len(); false: has none. */
bool spw_ct_length(struct spw_ct_value value, int64_t *out);

/* print.c: str() and repr() */
void spw_ct_print(struct spw_ct_run *run, struct spw_buffer *out, struct spw_ct_value value);
void spw_ct_print_repr(struct spw_ct_run *run, struct spw_buffer *out, struct spw_ct_value value);
struct spw_ct_value spw_ct_string(struct spw_ct_run *run, struct spw_ct_value value);
struct spw_ct_value spw_ct_repr(struct spw_ct_run *run, struct spw_ct_value value);

/* text.c: UTF-8 */
enum spw_ct_case { SPW_CT_CASE_UPPER, SPW_CT_CASE_LOWER, SPW_CT_CASE_TITLE };
bool spw_ct_valid(const char *text, size_t bytes);
/* The character at *at; moves on. The text is valid UTF-8. */
uint32_t spw_ct_point(const char *text, size_t bytes, size_t *at);
uint32_t spw_ct_point_before(const char *text, size_t *at);
void spw_ct_add_point(struct spw_buffer *out, uint32_t point);
size_t spw_ct_points(const char *text, size_t bytes);
size_t spw_ct_offset(const char *text, size_t bytes, size_t points);
struct spw_ct_value spw_ct_strip(struct spw_ct_value text, const struct spw_ct_value *chars,
                                 bool left, bool right);
/* Where `part` first (or last) stands in text from `from`; false: nowhere. */
bool spw_ct_find(struct spw_ct_value text, struct spw_ct_value part, size_t from, size_t *out);
bool spw_ct_find_last(struct spw_ct_value text, struct spw_ct_value part, size_t end, size_t *out);
struct spw_ct_value spw_ct_convert(struct spw_ct_run *run, struct spw_ct_value text,
                                   enum spw_ct_case target);
struct spw_ct_value spw_ct_capitalize(struct spw_ct_run *run, struct spw_ct_value text);
struct spw_ct_value spw_ct_replace(struct spw_ct_run *run, struct spw_ct_value text,
                                   struct spw_ct_value from, struct spw_ct_value to, int64_t max);
struct spw_ct_list *spw_ct_split_lines(struct spw_ct_run *run, struct spw_ct_value text, bool keep);
/* max < 0: all; NULL separator: runs of white space. */
struct spw_ct_list *spw_ct_split(struct spw_ct_run *run, struct spw_ct_value text,
                                 const struct spw_ct_value *separator, int64_t max,
                                 bool from_right);
struct spw_ct_value spw_ct_join(struct spw_ct_run *run, struct spw_ct_value separator,
                                const struct spw_ct_list *list);
struct spw_ct_value spw_ct_pad(struct spw_ct_run *run, struct spw_ct_value text, int64_t width,
                               struct spw_ct_value fill, int left_of_two);

/* unicode.c */
bool spw_ct_is_space(uint32_t point);
bool spw_ct_is_alpha(uint32_t point);
bool spw_ct_is_decimal(uint32_t point);
bool spw_ct_is_digit(uint32_t point);
bool spw_ct_is_numeric(uint32_t point);
bool spw_ct_is_alnum(uint32_t point);
bool spw_ct_is_printable(uint32_t point);
bool spw_ct_is_lower(uint32_t point);
bool spw_ct_is_upper(uint32_t point);
void spw_ct_add_case(struct spw_buffer *out, uint32_t point, enum spw_ct_case target);

/* number.c */
struct spw_ct_value spw_ct_arithmetic(struct spw_ct_run *run, enum spw_ct_operator operation,
                                      struct spw_ct_value a, struct spw_ct_value b);
struct spw_ct_value spw_ct_negate(struct spw_ct_run *run, struct spw_ct_value value, bool negative);
void spw_ct_add_float(struct spw_buffer *out, double real); /* as Python's repr */
struct spw_ct_value spw_ct_round(struct spw_ct_run *run, struct spw_ct_value value,
                                 struct spw_ct_value digits);
/* int(text, base) and float(text) of Python; false: not a number. */
bool spw_ct_parse_int(struct spw_ct_value text, int base, int64_t *out);
bool spw_ct_parse_float(struct spw_ct_value text, double *out);

/* format.c */
struct spw_ct_value spw_ct_percent(struct spw_ct_run *run, struct spw_ct_value text,
                                   struct spw_ct_value args);
struct spw_ct_value spw_ct_format(struct spw_ct_run *run, struct spw_ct_value text,
                                  const struct spw_ct_args *args);

/* json.c */
struct spw_ct_value spw_ct_from_json(struct spw_ct_run *run, const json_t *json, unsigned depth);
struct spw_ct_value spw_ct_to_json(struct spw_ct_run *run, struct spw_ct_value self,
                                   const struct spw_ct_args *args);

/* time.c */
struct spw_ct_value spw_ct_strftime(struct spw_ct_run *run, struct spw_ct_value format);

/* attr.c */
struct spw_ct_value spw_ct_attribute(struct spw_ct_run *run, struct spw_ct_value object,
                                     struct spw_ct_value name);
struct spw_ct_value spw_ct_item(struct spw_ct_run *run, struct spw_ct_value object,
                                struct spw_ct_value key);
struct spw_ct_value spw_ct_slice(struct spw_ct_run *run, struct spw_ct_value object,
                                 const struct spw_ct_value bounds[3]);
/* Python's slice arithmetic: the first index and how many. false: step 0. */
bool spw_ct_slice_bounds(const struct spw_ct_value bounds[3], int64_t length, int64_t *out_start,
                         int64_t *out_step, int64_t *out_count);

/* method.c */
const struct spw_ct_function *spw_ct_method_find(struct spw_ct_value object,
                                                 struct spw_ct_value name);

/* call.c */
struct spw_ct_value spw_ct_call_function(struct spw_ct_run *run,
                                         const struct spw_ct_function *function,
                                         struct spw_ct_value self, const struct spw_ct_args *args);
struct spw_ct_value spw_ct_call(struct spw_ct_run *run, struct spw_ct_value callee,
                                const struct spw_ct_args *args);
const struct spw_ct_function *spw_ct_find_row(const struct spw_ct_function *rows, size_t count,
                                              struct spw_ct_value name);
const struct spw_ct_function *spw_ct_global_find(struct spw_ct_value name);

/* filter*.c, test.c */
const struct spw_ct_function *spw_ct_filter_find(struct spw_ct_value name);
const struct spw_ct_function *spw_ct_test_find(struct spw_ct_value name);
extern const struct spw_ct_function spw_ct_list_filters[];
extern const size_t spw_ct_list_filters_count;
/* Arguments of a filter, with defaults. */
int64_t spw_ct_arg_int(struct spw_ct_run *run, struct spw_ct_value value, int64_t fallback);
bool spw_ct_arg_truth(struct spw_ct_value value, bool fallback);

/* eval.c */
struct spw_ct_value spw_ct_eval(struct spw_ct_run *run, struct spw_ct_scope *scope,
                                const struct spw_ct_node *node);
/* The arguments of a CALL, FILTER or TEST node; caller: NULL or one more named one. */
bool spw_ct_eval_args(struct spw_ct_run *run, struct spw_ct_scope *scope,
                      const struct spw_ct_node *node, const struct spw_ct_value *caller,
                      struct spw_ct_args *out);
/* operand: what a FILTER with no operand of its own works on. */
struct spw_ct_value spw_ct_eval_filter(struct spw_ct_run *run, struct spw_ct_scope *scope,
                                       const struct spw_ct_node *node, struct spw_ct_value operand);
void spw_ct_bind(struct spw_ct_run *run, struct spw_ct_scope *scope, uint32_t symbol,
                 struct spw_ct_value value);
const struct spw_ct_value *spw_ct_lookup(const struct spw_ct_run *run,
                                         const struct spw_ct_scope *scope, uint32_t symbol);

/* exec.c */
void spw_ct_exec(struct spw_ct_run *run, struct spw_ct_scope *scope,
                 const struct spw_ct_node_list *body, struct spw_buffer *out);
struct spw_ct_value spw_ct_call_macro(struct spw_ct_run *run, const struct spw_ct_macro *macro,
                                      const struct spw_ct_args *args);
struct spw_ct_value spw_ct_call_loop(struct spw_ct_run *run, const struct spw_ct_loop *loop,
                                     struct spw_ct_value items);

#endif
