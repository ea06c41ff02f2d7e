/* Normalizers, pre-tokenizers and decoders of tokenizer.json, each by its name. */
#include "runtime/model/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>

/* What GPT-2's ByteLevel splits by. */
#define BYTE_LEVEL_REGEX                                                                           \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

static bool is_type(const json_t *object, const char *type)
{
    return strcmp(spw_tok_type(object), type) == 0;
}

void spw_tok_steps_done(struct spw_tok_steps *steps)
{
    for (uint32_t i = 0; i < steps->count; i++) {
        spw_tok_pattern_done(&steps->step[i].pattern);
        free(steps->step[i].content);
    }
    steps->count = 0;
}

static enum spw_status add_step(struct spw_tok_steps *steps, enum spw_tok_step_kind kind,
                                struct spw_tok_step **out_step, struct spw_error *error)
{
    if (steps->count == SPW_TOK_STEPS_MAX)
        return spw_fail(error, SPW_TOO_LARGE, "more than %u steps", SPW_TOK_STEPS_MAX);
    *out_step = &steps->step[steps->count++];
    **out_step = (struct spw_tok_step){.kind = kind};
    return SPW_OK;
}

static enum spw_status copy_text(const json_t *object, const char *where, const char *key,
                                 char **out_text, size_t *out_bytes, struct spw_error *error)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value))
        return spw_fail(error, SPW_INVALID, "%s: \"%s\" is not a text", where, key);
    size_t bytes = json_string_length(value);
    if (bytes > SPW_TOK_CONTENT_BYTES_MAX)
        return spw_fail(error, SPW_TOO_LARGE, "%s: \"%s\" is too long", where, key);
    *out_text = strdup(json_string_value(value));
    if (out_bytes)
        *out_bytes = bytes;
    return *out_text ? SPW_OK : spw_fail(error, SPW_NO_MEMORY, "no memory for %s", where);
}

/* {"String": text} or {"Regex": text} */
static enum spw_status load_pattern(const json_t *object, const char *where,
                                    struct spw_tok_pattern *out, struct spw_error *error)
{
    const json_t *pattern = json_object_get(object, "pattern");
    enum spw_status status = spw_tok_keys(pattern, "pattern", " String Regex ", error);
    if (status < 0)
        return status;
    const json_t *regex = json_object_get(pattern, "Regex");
    if (json_is_string(regex)) {
        status = spw_tok_pattern_compile(json_string_value(regex), json_string_length(regex), out,
                                         error);
        if (status < 0)
            spw_error_prefix(error, "%s", where);
        return status;
    }
    status = copy_text(pattern, where, "String", &out->literal, &out->literal_bytes, error);
    if (status == SPW_OK && out->literal_bytes == 0)
        status = spw_fail(error, SPW_INVALID, "%s: the pattern is empty", where);
    return status;
}

/* ---- normalizers ---- */

static enum spw_status load_normalizer(struct spw_tokenizer *t, const json_t *object,
                                       unsigned depth, struct spw_error *error)
{
    static const char where[] = "normalizer";
    struct spw_tok_step *step = NULL;
    enum spw_status status;
    if (is_type(object, "Sequence") && depth < 4) {
        status = spw_tok_keys(object, where, " type normalizers ", error);
        const json_t *list = json_object_get(object, "normalizers");
        for (size_t i = 0; i < json_array_size(list) && status == SPW_OK; i++)
            status = load_normalizer(t, json_array_get(list, i), depth + 1, error);
        return status;
    }
    if (is_type(object, "NFC")) {
        status = spw_tok_keys(object, where, " type ", error);
        return status < 0 ? status : add_step(&t->normalizer, SPW_TOK_STEP_NFC, &step, error);
    }
    if (is_type(object, "Prepend")) {
        if ((status = spw_tok_keys(object, where, " type prepend ", error)) < 0 ||
            (status = add_step(&t->normalizer, SPW_TOK_STEP_PREPEND, &step, error)) < 0)
            return status;
        return copy_text(object, where, "prepend", &step->content, &step->content_bytes, error);
    }
    if (is_type(object, "Replace")) {
        if ((status = spw_tok_keys(object, where, " type pattern content ", error)) < 0 ||
            (status = add_step(&t->normalizer, SPW_TOK_STEP_REPLACE, &step, error)) < 0 ||
            (status = load_pattern(object, where, &step->pattern, error)) < 0)
            return status;
        return copy_text(object, where, "content", &step->content, &step->content_bytes, error);
    }
    return spw_fail(error, SPW_UNSUPPORTED,
                    "normalizer \"%.64s\" is not supported (NFC, Prepend, Replace, Sequence are)",
                    spw_tok_type(object));
}

enum spw_status spw_tok_normalizer_load(struct spw_tokenizer *t, const json_t *object,
                                        struct spw_error *error)
{
    if (!object || json_is_null(object))
        return SPW_OK;
    return load_normalizer(t, object, 0, error);
}

/* ---- pre-tokenizers ---- */

static enum spw_status read_behavior(const json_t *object, const char *where,
                                     enum spw_tok_behavior *out, struct spw_error *error)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *name = json_string_value(json_object_get(object, "behavior"));
    for (unsigned i = 0; name && i < SPW_ARRAY_COUNT(names); i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum spw_tok_behavior)i;
            return SPW_OK;
        }
    return spw_fail(error, SPW_UNSUPPORTED, "%s: behavior \"%.32s\" is not supported", where,
                    name ? name : "?");
}

static enum spw_status add_split(struct spw_tokenizer *t, const char *regex,
                                 enum spw_tok_behavior behavior, struct spw_error *error)
{
    struct spw_tok_step *step = NULL;
    enum spw_status status = add_step(&t->pre, SPW_TOK_STEP_SPLIT, &step, error);
    if (status < 0)
        return status;
    step->behavior = behavior;
    return spw_tok_pattern_compile(regex, strlen(regex), &step->pattern, error);
}

static enum spw_status load_split(struct spw_tokenizer *t, const json_t *object,
                                  struct spw_error *error)
{
    static const char where[] = "pre_tokenizer Split";
    struct spw_tok_step *step = NULL;
    enum spw_status status = spw_tok_keys(object, where, " type pattern behavior invert ", error);
    if (status < 0 || (status = add_step(&t->pre, SPW_TOK_STEP_SPLIT, &step, error)) < 0 ||
        (status = read_behavior(object, where, &step->behavior, error)) < 0 ||
        (status = spw_tok_bool(object, where, "invert", false, &step->invert, error)) < 0)
        return status;
    return load_pattern(object, where, &step->pattern, error);
}

static enum spw_status load_byte_level(struct spw_tokenizer *t, const json_t *object,
                                       struct spw_error *error)
{
    static const char where[] = "pre_tokenizer ByteLevel";
    bool space, regex;
    struct spw_tok_step *step = NULL;
    enum spw_status status =
        spw_tok_keys(object, where, " type add_prefix_space trim_offsets use_regex ", error);
    if (status < 0 ||
        (status = spw_tok_bool(object, where, "add_prefix_space", true, &space, error)) < 0 ||
        (status = spw_tok_bool(object, where, "use_regex", true, &regex, error)) < 0)
        return status;
    t->byte_level = true;
    if (space)
        status = add_step(&t->pre, SPW_TOK_STEP_PREFIX_SPACE, &step, error);
    if (status == SPW_OK && regex)
        status = add_split(t, BYTE_LEVEL_REGEX, SPW_TOK_ISOLATED, error);
    return status;
}

/* The replacement character, the scheme and whether the older add_prefix_space agrees with it. */
static enum spw_status read_metaspace(const json_t *object, const char *where,
                                      enum spw_tok_scheme *out_scheme, char **out_replacement,
                                      struct spw_error *error)
{
    static const char *const schemes[] = {"always", "never", "first"};
    enum spw_status status = spw_tok_keys(
        object, where, " type replacement add_prefix_space prepend_scheme split str_rep ", error);
    bool space;
    if (status < 0 ||
        (status = spw_tok_bool(object, where, "add_prefix_space", true, &space, error)) < 0)
        return status;
    const json_t *scheme = json_object_get(object, "prepend_scheme");
    *out_scheme = space ? SPW_TOK_PREPEND_ALWAYS : SPW_TOK_PREPEND_NEVER;
    if (scheme) {
        unsigned i = 0;
        while (i < 3 &&
               (!json_is_string(scheme) || strcmp(json_string_value(scheme), schemes[i]) != 0))
            i++;
        if (i == 3 || (!space && i != SPW_TOK_PREPEND_NEVER))
            return spw_fail(error, SPW_UNSUPPORTED, "%s: this prepend_scheme is not supported",
                            where);
        *out_scheme = (enum spw_tok_scheme)i;
    }
    char *text;
    size_t bytes;
    if ((status = copy_text(object, where, "replacement", &text, &bytes, error)) < 0)
        return status;
    uint32_t code, length = 0;
    if (bytes > 0)
        spw_tok_utf8_next((const uint8_t *)text, bytes, &code, &length);
    if (bytes == 0 || length != bytes) {
        free(text);
        return spw_fail(error, SPW_INVALID, "%s: \"replacement\" is not one character", where);
    }
    *out_replacement = text;
    return SPW_OK;
}

static enum spw_status load_metaspace(struct spw_tokenizer *t, const json_t *object,
                                      struct spw_error *error)
{
    static const char where[] = "pre_tokenizer Metaspace";
    struct spw_tok_step *step = NULL;
    enum spw_status status = add_step(&t->pre, SPW_TOK_STEP_METASPACE, &step, error);
    if (status < 0 ||
        (status = read_metaspace(object, where, &step->scheme, &step->content, error)) < 0)
        return status;
    step->content_bytes = strlen(step->content);
    return spw_tok_bool(object, where, "split", true, &step->split, error);
}

static enum spw_status load_pre(struct spw_tokenizer *t, const json_t *object, unsigned depth,
                                struct spw_error *error)
{
    enum spw_status status;
    if (is_type(object, "Sequence") && depth < 4) {
        status = spw_tok_keys(object, "pre_tokenizer", " type pretokenizers ", error);
        const json_t *list = json_object_get(object, "pretokenizers");
        for (size_t i = 0; i < json_array_size(list) && status == SPW_OK; i++)
            status = load_pre(t, json_array_get(list, i), depth + 1, error);
        return status;
    }
    if (t->byte_level)
        return spw_fail(error, SPW_UNSUPPORTED,
                        "pre_tokenizer: \"%.64s\" after ByteLevel is not supported",
                        spw_tok_type(object));
    if (is_type(object, "Split"))
        return load_split(t, object, error);
    if (is_type(object, "ByteLevel"))
        return load_byte_level(t, object, error);
    if (is_type(object, "Metaspace"))
        return load_metaspace(t, object, error);
    if (is_type(object, "Digits")) {
        bool single;
        status = spw_tok_keys(object, "pre_tokenizer Digits", " type individual_digits ", error);
        if (status < 0 || (status = spw_tok_bool(object, "pre_tokenizer Digits",
                                                 "individual_digits", false, &single, error)) < 0)
            return status;
        return add_split(t, "\\p{N}", single ? SPW_TOK_ISOLATED : SPW_TOK_CONTIGUOUS, error);
    }
    if (is_type(object, "Punctuation")) {
        enum spw_tok_behavior behavior = SPW_TOK_ISOLATED;
        status = spw_tok_keys(object, "pre_tokenizer Punctuation", " type behavior ", error);
        if (status == SPW_OK && json_object_get(object, "behavior"))
            status = read_behavior(object, "pre_tokenizer Punctuation", &behavior, error);
        return status < 0 ? status : add_split(t, "[\\p{P}$+<=>^`|~]", behavior, error);
    }
    if (is_type(object, "WhitespaceSplit")) {
        status = spw_tok_keys(object, "pre_tokenizer WhitespaceSplit", " type ", error);
        return status < 0 ? status : add_split(t, "\\s", SPW_TOK_REMOVED, error);
    }
    return spw_fail(
        error, SPW_UNSUPPORTED,
        "pre_tokenizer \"%.64s\" is not supported (ByteLevel, Split, Metaspace, Digits, "
        "Punctuation, WhitespaceSplit, Sequence are)",
        spw_tok_type(object));
}

enum spw_status spw_tok_pre_load(struct spw_tokenizer *t, const json_t *object,
                                 struct spw_error *error)
{
    if (!object || json_is_null(object))
        return SPW_OK;
    return load_pre(t, object, 0, error);
}

/* ---- decoders ---- */

static enum spw_status load_decoder_step(struct spw_tokenizer *t, const json_t *object,
                                         unsigned *stage, struct spw_error *error)
{
    static const char where[] = "decoder";
    struct spw_tok_decoder *decoder = &t->decoder;
    /* Replace* ByteFallback? Fuse? Strip?: stages 0, 1, 2, 3 */
    static const char *const order[] = {"Replace", "ByteFallback", "Fuse", "Strip"};
    unsigned kind = 0;
    while (kind < 4 && !is_type(object, order[kind]))
        kind++;
    if (kind == 4 || kind < *stage || (kind == 3 && *stage != 3))
        return spw_fail(error, SPW_UNSUPPORTED,
                        "decoder: \"%.64s\" at this place is not supported (Replace, ByteFallback, "
                        "Fuse, Strip in this order are)",
                        spw_tok_type(object));
    *stage = kind == 0 ? 0 : kind + 1;
    enum spw_status status;
    if (kind == 1) {
        decoder->byte_fallback = true;
        return spw_tok_keys(object, where, " type ", error);
    }
    if (kind == 2)
        return spw_tok_keys(object, where, " type ", error);
    if (kind == 0) {
        if ((status = spw_tok_keys(object, where, " type pattern content ", error)) < 0)
            return status;
        if (decoder->replace)
            return spw_fail(error, SPW_UNSUPPORTED, "decoder: more than one Replace");
        const json_t *pattern = json_object_get(object, "pattern");
        if (json_string_length(json_object_get(pattern, "String")) == 0)
            return spw_fail(error, SPW_UNSUPPORTED, "decoder: Replace of anything but a String");
        if ((status = copy_text(pattern, where, "String", &decoder->replace, NULL, error)) < 0)
            return status;
        return copy_text(object, where, "content", &decoder->by, NULL, error);
    }
    if ((status = spw_tok_keys(object, where, " type content start stop ", error)) < 0)
        return status;
    const char *content = json_string_value(json_object_get(object, "content"));
    json_int_t start = json_integer_value(json_object_get(object, "start"));
    json_int_t stop = json_integer_value(json_object_get(object, "stop"));
    if (!content || (uint8_t)content[0] >= 0x80 || strlen(content) != 1 || start < 0 || start > 1 ||
        stop != 0)
        return spw_fail(
            error, SPW_UNSUPPORTED,
            "decoder: Strip is supported with one ASCII character, start 0 or 1, stop 0");
    decoder->strip = content[0];
    decoder->start = start ? SPW_TOK_START_STRIP : SPW_TOK_START_PLAIN;
    return SPW_OK;
}

enum spw_status spw_tok_decoder_load(struct spw_tokenizer *t, const json_t *object,
                                     struct spw_error *error)
{
    struct spw_tok_decoder *decoder = &t->decoder;
    unsigned stage = 0;
    enum spw_status status = SPW_OK;
    if (!object || json_is_null(object))
        return spw_fail(error, SPW_UNSUPPORTED,
                        "decoder: null (tokens joined by spaces) is not supported");
    if (is_type(object, "Sequence")) {
        status = spw_tok_keys(object, "decoder", " type decoders ", error);
        const json_t *list = json_object_get(object, "decoders");
        if (json_array_size(list) == 1)
            object = json_array_get(list, 0); /* as if it stood alone */
        else
            for (size_t i = 0; i < json_array_size(list) && status == SPW_OK; i++)
                status = load_decoder_step(t, json_array_get(list, i), &stage, error);
        if (json_array_size(list) != 1)
            object = NULL;
    }
    if (status < 0 || !object) {
        /* done */
    } else if (is_type(object, "ByteLevel")) {
        decoder->byte_level = true;
        status = spw_tok_keys(object, "decoder", " type add_prefix_space trim_offsets use_regex ",
                              error);
    } else if (is_type(object, "Metaspace")) {
        enum spw_tok_scheme scheme;
        status = read_metaspace(object, "decoder Metaspace", &scheme, &decoder->replace, error);
        if (status == SPW_OK && !(decoder->by = strdup(" ")))
            status = spw_fail(error, SPW_NO_MEMORY, "no memory for the decoder");
        decoder->start =
            scheme == SPW_TOK_PREPEND_NEVER ? SPW_TOK_START_PLAIN : SPW_TOK_START_METASPACE;
    } else {
        status = load_decoder_step(t, object, &stage, error);
    }
    if (status == SPW_OK && decoder->byte_level != t->byte_level)
        status = spw_fail(error, SPW_UNSUPPORTED,
                          "pre_tokenizer and decoder must both be ByteLevel, or neither");
    return status;
}
