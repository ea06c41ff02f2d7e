/* Patterns of tokenizer.json. They are written for Oniguruma in its Ruby dialect and matched here
 * by PCRE2. What both take alike goes through; \s and \S become Unicode's White_Space, as Oniguruma
 * has it; everything that they read differently is refused by name.
 */
#include "runtime/model/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>

#define PATTERN_BYTES_MAX 8192u
#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"

struct scan {
    const char *at, *end;
    bool in_class;
    bool begun; /* something was before this in the pattern */
    struct spw_buffer *out;
    struct spw_error *error;
};

static enum spw_status refuse(struct scan *s, const char *what)
{
    return spw_fail(s->error, SPW_UNSUPPORTED, "pattern: %s is not supported (near \"%.24s\")",
                    what, s->at);
}

static char peek(const struct scan *s, size_t offset)
{
    return (size_t)(s->end - s->at) > offset ? s->at[offset] : 0;
}

static void copy(struct scan *s, size_t bytes)
{
    spw_buffer_add(s->out, s->at, bytes);
    s->at += bytes;
}

/* Length of "{...}" at offset, made of the given characters; 0 when it is none. */
static size_t braces(const struct scan *s, size_t offset, const char *of)
{
    if (peek(s, offset) != '{')
        return 0;
    size_t inside = strspn(s->at + offset + 1, of);
    return inside > 0 && peek(s, offset + 1 + inside) == '}' ? inside + 2 : 0;
}

static enum spw_status scan_escape(struct scan *s)
{
    static const char hex[] = "0123456789abcdefABCDEF";
    char c = peek(s, 1);
    switch (c) {
    case 's':
    case 'S':
        if (s->in_class && c == 'S')
            return refuse(s, "\\S in a class");
        spw_buffer_add_text(s->out,
                            s->in_class ? SPACES : (c == 's' ? "[" SPACES "]" : "[^" SPACES "]"));
        s->at += 2;
        return SPW_OK;
    case 'd':
    case 'D':
    case 'r':
    case 'n':
    case 't':
    case 'f':
        copy(s, 2);
        return SPW_OK;
    case 'p':
    case 'P': {
        size_t name = braces(s, 2, "^_=-&abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
        if (!name)
            return refuse(s, "this property");
        copy(s, 2 + name);
        return SPW_OK;
    }
    case 'x': {
        size_t code = braces(s, 2, hex);
        if (!code &&
            (!peek(s, 2) || !strchr(hex, peek(s, 2)) || !peek(s, 3) || !strchr(hex, peek(s, 3))))
            return refuse(s, "this \\x");
        copy(s, code ? 2 + code : 4);
        return SPW_OK;
    }
    case 'u':
        if (strspn(s->at + 2, hex) < 4)
            return refuse(s, "this \\u");
        spw_buffer_add_text(s->out, "\\x{");
        s->at += 2;
        copy(s, 4);
        spw_buffer_add_text(s->out, "}");
        return SPW_OK;
    default:
        if (c <= ' ' || (unsigned char)c >= 0x7f || (c >= '0' && c <= '9') ||
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
            return refuse(s, "this escape");
        copy(s, 2);
        return SPW_OK;
    }
}

static enum spw_status scan_class(struct scan *s)
{
    char c = *s->at;
    if (c == '[')
        return refuse(s, "a class in a class");
    if (c == '&' && peek(s, 1) == '&')
        return refuse(s, "&& in a class");
    if (c == ']')
        s->in_class = false;
    copy(s, 1);
    return SPW_OK;
}

static enum spw_status scan_group(struct scan *s)
{
    if (peek(s, 1) == '*')
        return refuse(s, "(*");
    if (peek(s, 1) != '?') {
        copy(s, 1);
        return SPW_OK;
    }
    static const char *const known[] = {"(?:",  "(?=",  "(?!",  "(?>",
                                        "(?<=", "(?<!", "(?i:", "(?-i:"};
    size_t left = (size_t)(s->end - s->at);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(known); i++) {
        size_t bytes = strlen(known[i]);
        if (left >= bytes && memcmp(s->at, known[i], bytes) == 0) {
            copy(s, bytes);
            return SPW_OK;
        }
    }
    /* elsewhere the two differ on how far it reaches past a | */
    if (!s->begun && left >= 4 && memcmp(s->at, "(?i)", 4) == 0) {
        copy(s, 4);
        return SPW_OK;
    }
    return refuse(s, "this group");
}

static enum spw_status scan_one(struct scan *s)
{
    if (*s->at == '\\')
        return scan_escape(s);
    if (s->in_class)
        return scan_class(s);
    switch (*s->at) {
    case '(':
        return scan_group(s);
    case '[':
        s->in_class = true;
        copy(s, peek(s, 1) == '^' ? 2 : 1);
        return peek(s, 0) == ']' ? refuse(s, "] as the first of a class") : SPW_OK;
    case '{': {
        size_t count = braces(s, 0, "0123456789,");
        char next = count ? peek(s, count) : 0;
        if (!count || s->at[1] == ',' || next == '+' || (next == '?' && !memchr(s->at, ',', count)))
            return refuse(s, "this {");
        copy(s, count);
        return SPW_OK;
    }
    default:
        copy(s, 1);
        return SPW_OK;
    }
}

static enum spw_status compile(const struct spw_buffer *text, struct spw_tok_pattern *out,
                               struct spw_error *error)
{
    int code;
    PCRE2_SIZE at;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for a pattern");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 50);
    out->code = pcre2_compile(text->data, text->bytes,
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                              &code, &at, context);
    pcre2_compile_context_free(context);
    if (!out->code) {
        PCRE2_UCHAR words[128];
        pcre2_get_error_message(code, words, sizeof(words));
        return spw_fail(error, SPW_INVALID, "pattern: %s (at byte %zu as PCRE2 reads it)",
                        (const char *)words, (size_t)at);
    }
    /* where no executable memory is given the interpreter does the same, more slowly */
    out->jit = pcre2_jit_compile(out->code, PCRE2_JIT_COMPLETE) == 0;
    return SPW_OK;
}

enum spw_status spw_tok_pattern_compile(const char *regex, size_t bytes,
                                        struct spw_tok_pattern *out_pattern,
                                        struct spw_error *error)
{
    if (bytes == 0 || bytes > PATTERN_BYTES_MAX)
        return spw_fail(error, SPW_UNSUPPORTED, "pattern: %zu bytes; 1 to %u are possible", bytes,
                        PATTERN_BYTES_MAX);
    struct spw_buffer text;
    spw_buffer_init(&text, 32 * PATTERN_BYTES_MAX);
    struct scan s = {.at = regex, .end = regex + bytes, .out = &text, .error = error};
    enum spw_status status = SPW_OK;
    for (; s.at < s.end && status == SPW_OK; s.begun = true)
        status = scan_one(&s);
    if (status == SPW_OK && text.failed)
        status = spw_fail(error, SPW_TOO_LARGE, "pattern: too long");
    if (status == SPW_OK)
        status = compile(&text, out_pattern, error);
    spw_buffer_done(&text);
    return status;
}

void spw_tok_pattern_done(struct spw_tok_pattern *pattern)
{
    pcre2_code_free(pattern->code);
    free(pattern->literal);
    *pattern = (struct spw_tok_pattern){0};
}
