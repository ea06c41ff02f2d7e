/* Template source to tokens: the rules for white space live here (trim_blocks, lstrip_blocks, "-"
 * and "+" in tags, one newline dropped at the end of the source).
 */
#include "runtime/model/chat_template_int.h"

#include <stdlib.h>
#include <string.h>

struct lexer {
    struct spw_ct_parser *parser;
    const char *text;
    size_t bytes;
    size_t at;
    size_t counted; /* lines are counted up to here */
    uint32_t line;
    char brackets[SPW_CT_NESTING_MAX]; /* the closing ones that are awaited */
    size_t brackets_count;
};

static uint32_t line_at(struct lexer *lexer, size_t at)
{
    for (; lexer->counted < at; lexer->counted++)
        lexer->line += lexer->text[lexer->counted] == '\n';
    return lexer->line;
}

static bool starts(const struct lexer *lexer, size_t at, const char *word)
{
    size_t bytes = strlen(word);
    return bytes <= lexer->bytes - at && memcmp(lexer->text + at, word, bytes) == 0;
}

static size_t skip_space(const struct lexer *lexer, size_t at)
{
    while (at < lexer->bytes) {
        size_t next = at;
        if (!spw_ct_is_space(spw_ct_point(lexer->text, lexer->bytes, &next)))
            break;
        at = next;
    }
    return at;
}

static struct spw_ct_token *add_token(struct lexer *lexer, enum spw_ct_token_kind kind,
                                      const char *text, size_t bytes)
{
    struct spw_ct_parser *parser = lexer->parser;
    if (parser->failed)
        return NULL;
    if (parser->tokens_count == parser->tokens_capacity) {
        size_t capacity = parser->tokens_capacity ? parser->tokens_capacity * 2 : 256;
        struct spw_ct_token *tokens = realloc(parser->tokens, capacity * sizeof(*tokens));
        if (!tokens) {
            spw_ct_parser_fail_size(parser, lexer->line, "memory");
            return NULL;
        }
        parser->tokens = tokens;
        parser->tokens_capacity = capacity;
    }
    struct spw_ct_token *token = &parser->tokens[parser->tokens_count++];
    *token = (struct spw_ct_token){.kind = kind, .text = text, .bytes = bytes};
    token->line = line_at(lexer, lexer->at);
    return token;
}

/* Text before a tag, cut at its end as the tag's sign and the settings say. */
static void add_data(struct lexer *lexer, size_t start, size_t end, char sign, bool is_print)
{
    if (sign == '-') {
        while (end > start) {
            size_t before = end;
            if (!spw_ct_is_space(spw_ct_point_before(lexer->text, &before)))
                break;
            end = before;
        }
    } else if (sign != '+' && !is_print) {
        size_t line_start = end;
        while (line_start > start && lexer->text[line_start - 1] != '\n')
            line_start--;
        bool at_line_start = line_start > start || start == 0 || lexer->text[start - 1] == '\n';
        if (at_line_start && skip_space(lexer, line_start) >= end)
            end = line_start;
    }
    if (end > start)
        add_token(lexer, SPW_CT_TOKEN_DATA, lexer->text + start, end - start);
}

static char sign_at(const struct lexer *lexer, size_t at)
{
    char c = at < lexer->bytes ? lexer->text[at] : '\0';
    return c == '-' || c == '+' ? c : '\0';
}

/* The end of a block or comment tag at `at` ("-%}" and its white space, "%}" and a newline, "+%}").
 * Returns where the tag ends, 0 when none is here.
 */
static size_t match_end(const struct lexer *lexer, size_t at, const char *close)
{
    char sign = sign_at(lexer, at);
    size_t from = at + (sign ? 1 : 0);
    if (from > lexer->bytes || !starts(lexer, from, close))
        return 0;
    size_t end = from + 2;
    if (sign == '-')
        return skip_space(lexer, end);
    if (!sign && close[0] != '}' && end < lexer->bytes && lexer->text[end] == '\n')
        end++;
    return sign == '+' && close[0] == '}' ? 0 : end;
}

/* "{% raw %}" or "{% endraw %}" at `at`. Returns where it ends, 0 when it is not here. */
static size_t match_raw(const struct lexer *lexer, size_t at, const char *word)
{
    size_t from = skip_space(lexer, at + 2 + (sign_at(lexer, at + 2) ? 1 : 0));
    if (!starts(lexer, from, word))
        return 0;
    from = skip_space(lexer, from + strlen(word));
    if (strcmp(word, "raw") != 0)
        return match_end(lexer, from, "%}");
    if (starts(lexer, from, "%}"))
        return from + 2;
    return starts(lexer, from, "-%}") ? skip_space(lexer, from + 3) : 0;
}

static void lex_raw(struct lexer *lexer)
{
    size_t start = lexer->at;
    for (size_t at = start; at < lexer->bytes; at++) {
        size_t end = starts(lexer, at, "{%") ? match_raw(lexer, at, "endraw") : 0;
        if (end) {
            add_data(lexer, start, at, sign_at(lexer, at + 2), false);
            lexer->at = end;
            return;
        }
    }
    spw_ct_parser_fail(lexer->parser, line_at(lexer, start), "TemplateSyntaxError",
                       "Missing end of raw directive");
}

static void lex_comment(struct lexer *lexer)
{
    for (size_t at = lexer->at; at < lexer->bytes; at++) {
        size_t end = match_end(lexer, at, "#}");
        if (end) {
            lexer->at = end;
            return;
        }
    }
    spw_ct_parser_fail(lexer->parser, line_at(lexer, lexer->at), "TemplateSyntaxError",
                       "Missing end of comment tag");
}

static bool is_digit(char c, int base)
{
    if (base <= 10)
        return c >= '0' && c < '0' + base;
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'f');
}

/* Digits with single underscores between them, from `at`; leading: "_" may come first. */
static size_t digits_end(const struct lexer *lexer, size_t at, int base, bool leading)
{
    while (at < lexer->bytes) {
        size_t next = at + (lexer->text[at] == '_' && leading ? 1 : 0);
        if (next >= lexer->bytes || !is_digit(lexer->text[next], base))
            break;
        at = next + 1;
        leading = true;
    }
    return at;
}

static size_t float_end(const struct lexer *lexer, size_t at)
{
    if (at > 0 && lexer->text[at - 1] == '.')
        return 0;
    size_t end = digits_end(lexer, at, 10, false);
    bool is_float = false;
    if (end < lexer->bytes && lexer->text[end] == '.') {
        size_t fraction = digits_end(lexer, end + 1, 10, false);
        if (fraction > end + 1) {
            end = fraction;
            is_float = true;
        }
    }
    if (end < lexer->bytes && (lexer->text[end] | 32) == 'e') {
        size_t from = end + 1 + (sign_at(lexer, end + 1) ? 1 : 0);
        size_t exponent = digits_end(lexer, from, 10, false);
        if (exponent > from)
            return exponent;
    }
    return is_float ? end : 0;
}

static void lex_number(struct lexer *lexer)
{
    const char *text = lexer->text + lexer->at;
    size_t end = float_end(lexer, lexer->at);
    bool is_float = end > 0;
    int base = 10;
    if (!is_float && text[0] == '0' && lexer->at + 2 < lexer->bytes) {
        char letter = (char)(text[1] | 32);
        base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
        end = base == 10 ? 0 : digits_end(lexer, lexer->at + 2, base, true);
        if (end <= lexer->at + 2)
            base = 10;
    }
    if (!is_float && base == 10)
        end = text[0] == '0' ? digits_end(lexer, lexer->at, 1, false)
                             : digits_end(lexer, lexer->at, 10, false);
    struct spw_ct_value digits = spw_ct_text(text, end - lexer->at);
    struct spw_ct_token *token =
        add_token(lexer, is_float ? SPW_CT_TOKEN_FLOAT : SPW_CT_TOKEN_INT, text, digits.bytes);
    if (!token)
        return;
    if (is_float ? !spw_ct_parse_float(digits, &token->real)
                 : !spw_ct_parse_int(digits, base, &token->integer))
        spw_ct_parser_fail(lexer->parser, token->line, "OverflowError",
                           "number %.*s is beyond 64 bits", (int)SPW_MIN(digits.bytes, 40u), text);
    lexer->at = end;
}

static int hex_value(const char *text, size_t bytes, size_t at, size_t count, uint32_t *out)
{
    *out = 0;
    for (size_t i = 0; i < count; i++) {
        if (at + i >= bytes || !is_digit(text[at + i], 16))
            return -1;
        char c = text[at + i];
        *out = *out * 16 + (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    return 0;
}

/* One escape after its backslash at text[*at]. false: Python refuses it. */
static bool unescape_one(const char *text, size_t bytes, size_t *at, struct spw_buffer *out)
{
    static const char letters[] = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v";
    char c = text[*at];
    for (size_t i = 0; i + 1 < sizeof(letters); i += 2) {
        if (letters[i] == c) {
            spw_buffer_add_u8(out, (uint8_t)letters[i + 1]);
            (*at)++;
            return true;
        }
    }
    uint32_t point = 0;
    if (c == '\n') {
        (*at)++;
    } else if (is_digit(c, 8)) {
        for (int i = 0; i < 3 && *at < bytes && is_digit(text[*at], 8); i++)
            point = point * 8 + (uint32_t)(text[(*at)++] - '0');
        spw_ct_add_point(out, point);
    } else if (c == 'x' || c == 'u' || c == 'U') {
        size_t count = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        if (hex_value(text, bytes, *at + 1, count, &point) < 0 || point > 0x10ffff ||
            (point >= 0xd800 && point <= 0xdfff))
            return false;
        spw_ct_add_point(out, point);
        *at += 1 + count;
    } else if (c == 'N') {
        return false;
    } else {
        /* any other character keeps its backslash; beyond ASCII Python shows its escape */
        point = spw_ct_point(text, bytes, at);
        if (point < 0x80)
            spw_buffer_format(out, "\\%c", (int)point);
        else
            spw_buffer_format(out,
                              point < 0x100     ? "\\x%02x"
                              : point < 0x10000 ? "\\u%04x"
                                                : "\\U%08x",
                              point);
    }
    return true;
}

static void lex_string(struct lexer *lexer)
{
    const char *text = lexer->text;
    char quote = text[lexer->at];
    size_t start = lexer->at + 1;
    size_t end = start;
    bool escapes = false;
    while (end < lexer->bytes && text[end] != quote) {
        escapes = escapes || text[end] == '\\';
        end += text[end] == '\\' && end + 1 < lexer->bytes ? 2 : 1;
    }
    uint32_t line = line_at(lexer, lexer->at);
    if (end >= lexer->bytes) {
        spw_ct_parser_fail(lexer->parser, line, "TemplateSyntaxError",
                           "unexpected char %s: a string that does not end",
                           quote == '"' ? "'\"'" : "\"'\"");
        return;
    }
    struct spw_ct_token *token = add_token(lexer, SPW_CT_TOKEN_STRING, text + start, end - start);
    lexer->at = end + 1;
    if (!token || !escapes)
        return;
    struct spw_buffer out;
    spw_ct_buffer_init(&out);
    for (size_t at = start; at < end && !lexer->parser->failed;) {
        if (text[at] != '\\')
            spw_buffer_add_u8(&out, (uint8_t)text[at++]);
        else if (at++, !unescape_one(text, end, &at, &out))
            spw_ct_parser_fail(lexer->parser, line, "TemplateSyntaxError",
                               "bad escape in a string");
    }
    char *copy = spw_ct_parser_take(lexer->parser, out.bytes + 1);
    if (copy && out.bytes)
        memcpy(copy, out.data, out.bytes);
    token->text = copy;
    token->bytes = out.bytes;
    spw_buffer_done(&out);
}

static void lex_name(struct lexer *lexer)
{
    size_t end = lexer->at;
    for (size_t next = end; end < lexer->bytes; end = next) {
        uint32_t point = spw_ct_point(lexer->text, lexer->bytes, &next);
        if (point != '_' && !spw_ct_is_alnum(point))
            break;
    }
    add_token(lexer, SPW_CT_TOKEN_NAME, lexer->text + lexer->at, end - lexer->at);
    lexer->at = end;
}

static bool balance(struct lexer *lexer, char c)
{
    uint32_t line = line_at(lexer, lexer->at);
    char close = c == '(' ? ')' : c == '[' ? ']' : c == '{' ? '}' : '\0';
    if (close) {
        if (lexer->brackets_count == SPW_CT_NESTING_MAX) {
            spw_ct_parser_fail_size(lexer->parser, line, "the nesting");
            return false;
        }
        lexer->brackets[lexer->brackets_count++] = close;
    } else if (c == ')' || c == ']' || c == '}') {
        if (!lexer->brackets_count || lexer->brackets[--lexer->brackets_count] != c) {
            spw_ct_parser_fail(lexer->parser, line, "TemplateSyntaxError", "unexpected '%c'", c);
            return false;
        }
    }
    return true;
}

static void lex_operator(struct lexer *lexer)
{
    static const char *const operators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                            "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                            ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(operators); i++) {
        if (!starts(lexer, lexer->at, operators[i]))
            continue;
        if (!balance(lexer, operators[i][0]))
            return;
        add_token(lexer, SPW_CT_TOKEN_OPERATOR, operators[i], strlen(operators[i]));
        lexer->at += strlen(operators[i]);
        return;
    }
    size_t end = lexer->at;
    spw_ct_point(lexer->text, lexer->bytes, &end);
    spw_ct_parser_fail(lexer->parser, line_at(lexer, lexer->at), "TemplateSyntaxError",
                       "unexpected char '%.*s'", (int)(end - lexer->at), lexer->text + lexer->at);
}

/* The inside of a tag, up to and with its end. */
static void lex_tag(struct lexer *lexer, const char *close, enum spw_ct_token_kind end_kind)
{
    lexer->brackets_count = 0;
    while (!lexer->parser->failed) {
        size_t next = lexer->at;
        if (next >= lexer->bytes)
            return;
        size_t end = lexer->brackets_count ? 0 : match_end(lexer, next, close);
        if (end) {
            add_token(lexer, end_kind, close, 2);
            lexer->at = end;
            return;
        }
        uint32_t point = spw_ct_point(lexer->text, lexer->bytes, &next);
        if (spw_ct_is_space(point))
            lexer->at = next;
        else if (point >= '0' && point <= '9')
            lex_number(lexer);
        else if (point == '_' || spw_ct_is_alpha(point))
            lex_name(lexer);
        else if (point == '"' || point == '\'')
            lex_string(lexer);
        else
            lex_operator(lexer);
    }
}

static size_t normalize(char *out, const char *source, size_t bytes)
{
    size_t used = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (source[i] == '\r' && i + 1 < bytes && source[i + 1] == '\n')
            continue;
        out[used++] = source[i] == '\r' ? '\n' : source[i];
    }
    return used > 0 && out[used - 1] == '\n' ? used - 1 : used;
}

static void lex_next(struct lexer *lexer)
{
    size_t tag = lexer->at;
    while (tag < lexer->bytes && !(lexer->text[tag] == '{' && tag + 1 < lexer->bytes &&
                                   strchr("%{#", lexer->text[tag + 1]) && lexer->text[tag + 1]))
        tag++;
    if (tag >= lexer->bytes) {
        add_data(lexer, lexer->at, lexer->bytes, '+', false);
        lexer->at = lexer->bytes;
        return;
    }
    char sign = sign_at(lexer, tag + 2);
    char kind = lexer->text[tag + 1];
    add_data(lexer, lexer->at, tag, sign, kind == '{');
    lexer->at = tag;
    size_t raw = kind == '%' ? match_raw(lexer, tag, "raw") : 0;
    if (raw) {
        lexer->at = raw;
        lex_raw(lexer);
        return;
    }
    if (kind != '#')
        add_token(lexer, kind == '{' ? SPW_CT_TOKEN_PRINT_BEGIN : SPW_CT_TOKEN_BLOCK_BEGIN,
                  lexer->text + tag, 2);
    lexer->at = tag + 2 + (sign ? 1 : 0);
    if (kind == '#')
        lex_comment(lexer);
    else if (kind == '{')
        lex_tag(lexer, "}}", SPW_CT_TOKEN_PRINT_END);
    else
        lex_tag(lexer, "%}", SPW_CT_TOKEN_BLOCK_END);
}

void spw_ct_lex(struct spw_ct_parser *parser, const char *source, size_t bytes)
{
    struct lexer lexer = {.parser = parser, .line = 1};
    if (bytes > SPW_CT_SOURCE_BYTES_MAX) {
        spw_ct_parser_fail_size(parser, 1, "the source");
        return;
    }
    if (!spw_ct_valid(source, bytes)) {
        spw_ct_parser_fail(parser, 1, "UnicodeDecodeError", "the source is not valid UTF-8");
        return;
    }
    char *text = spw_ct_parser_take(parser, bytes + 1);
    if (!text)
        return;
    lexer.text = text;
    lexer.bytes = normalize(text, source, bytes);
    while (lexer.at < lexer.bytes && !parser->failed)
        lex_next(&lexer);
    add_token(&lexer, SPW_CT_TOKEN_END, "end of template", 15);
}
