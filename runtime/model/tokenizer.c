/* Opening a tokenizer, and the way of a text through its steps, as the tokenizers library of
 * Hugging Face has it: added tokens are cut out, the rest is normalized, added tokens of the
 * normalized kind are cut out, the rest is cut into words, and each word is encoded.
 */
#include "runtime/model/tokenizer_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_BYTES_MAX     (256u << 20)
#define TEMPLATE_BYTES_MAX (1u << 20)
#define MATCH_LIMIT        1000000u /* ways that one match may try */
#define MATCH_HEAP_KIB     20000u
#define JIT_STACK_BYTES    (1u << 20)

void spw_token_list_done(struct spw_token_list *list)
{
    free(list->ids);
    *list = (struct spw_token_list){0};
}

/* ---- opening ---- */

/* The whole file with a closing zero. SPW_NOT_FOUND quietly. */
static enum spw_status read_file(const char *dir, const char *name, size_t bytes_max,
                                 struct spw_buffer *out, struct spw_error *error)
{
    char path[4096];
    if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
        return spw_fail(error, SPW_INVALID, "the path of %s is too long", name);
    FILE *file = fopen(path, "rb");
    if (!file && errno == ENOENT)
        return SPW_NOT_FOUND;
    if (!file)
        return spw_fail(error, SPW_IO, "%s: %s", path, strerror(errno));
    enum spw_status status = SPW_OK;
    spw_buffer_init(out, bytes_max);
    size_t got;
    do {
        static const size_t step = 1 << 16;
        uint8_t *at = spw_buffer_extend(out, step);
        if (!at) {
            status = spw_fail(error, SPW_TOO_LARGE, "%s: larger than %zu bytes", path, bytes_max);
            break;
        }
        got = fread(at, 1, step, file);
        out->bytes -= step - got;
    } while (got > 0);
    if (status == SPW_OK && ferror(file))
        status = spw_fail(error, SPW_IO, "%s: %s", path, strerror(errno));
    fclose(file);
    if (status < 0)
        spw_buffer_done(out);
    return status;
}

static json_t *parse(const char *name, const char *text, size_t bytes, size_t flags,
                     struct spw_error *error)
{
    json_error_t problem;
    json_t *root = json_loadb(text, bytes, flags, &problem);
    if (!root)
        spw_fail(error, SPW_INVALID, "%s: line %d, column %d: %s", name, problem.line,
                 problem.column, problem.text);
    return root;
}

static enum spw_status load(struct spw_tokenizer *t, const json_t *root, struct spw_error *error)
{
    static const char known[] = " version truncation padding added_tokens normalizer pre_tokenizer "
                                "post_processor decoder model ";
    enum spw_status status = spw_tok_keys(root, "the file", known, error);
    if (status < 0)
        return status;
    const json_t *version = json_object_get(root, "version");
    if (version && (!json_is_string(version) || strcmp(json_string_value(version), "1.0") != 0))
        return spw_fail(error, SPW_UNSUPPORTED, "\"version\" is not \"1.0\"");
    static const char *const nulls[] = {"truncation", "padding"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(nulls); i++) {
        const json_t *value = json_object_get(root, nulls[i]);
        if (value && !json_is_null(value))
            return spw_fail(error, SPW_UNSUPPORTED, "\"%s\" is not supported; set it to null",
                            nulls[i]);
    }
    if ((status = spw_tok_pre_load(t, json_object_get(root, "pre_tokenizer"), error)) < 0 ||
        (status = spw_tok_decoder_load(t, json_object_get(root, "decoder"), error)) < 0 ||
        (status = spw_tok_normalizer_load(t, json_object_get(root, "normalizer"), error)) < 0 ||
        (status = spw_tok_vocab_load(t, root, error)) < 0 ||
        (status = spw_tok_raw_fill(t, error)) < 0 || (status = spw_tok_tries_fill(t, error)) < 0)
        return status;
    return spw_tok_post_load(t, json_object_get(root, "post_processor"), error);
}

enum spw_status spw_tokenizer_parse(const char *json, size_t bytes, const char *config_json,
                                    size_t config_bytes, struct spw_tokenizer **out_tokenizer,
                                    struct spw_error *error)
{
    enum spw_status status = SPW_NO_MEMORY;
    json_t *root = NULL, *config = NULL;
    struct spw_tokenizer *t = calloc(1, sizeof(*t));
    if (!t) {
        spw_fail(error, SPW_NO_MEMORY, "no memory for the tokenizer");
        goto out;
    }
    spw_buffer_init(&t->pool, UINT32_MAX);
    status = SPW_INVALID;
    root = parse("tokenizer.json", json, bytes, JSON_REJECT_DUPLICATES, error);
    if (!root)
        goto out;
    status = load(t, root, error);
    if (status < 0) {
        spw_error_prefix(error, "tokenizer.json");
        goto out;
    }
    if (config_json) {
        status = SPW_INVALID;
        /* as real: a model_max_length of 10^30 is common */
        config = parse("tokenizer_config.json", config_json, config_bytes, JSON_DECODE_INT_AS_REAL,
                       error);
        if (!config || (status = spw_tok_config_load(t, config, error)) < 0)
            goto out;
    }
    *out_tokenizer = t;
    t = NULL;
out:
    json_decref(root);
    json_decref(config);
    spw_tokenizer_close(t);
    return status;
}

enum spw_status spw_tokenizer_open(const char *dir, struct spw_tokenizer **out_tokenizer,
                                   struct spw_error *error)
{
    struct spw_buffer json = {0}, config = {0}, template = {0};
    struct spw_tokenizer *t = NULL;
    enum spw_status status = read_file(dir, "tokenizer.json", JSON_BYTES_MAX, &json, error);
    if (status == SPW_NOT_FOUND)
        spw_fail(error, SPW_NOT_FOUND, "%s/tokenizer.json does not exist", dir);
    if (status < 0)
        goto out;
    status = read_file(dir, "tokenizer_config.json", JSON_BYTES_MAX, &config, error);
    if (status < 0 && status != SPW_NOT_FOUND)
        goto out;
    status = spw_tokenizer_parse((const char *)json.data, json.bytes,
                                 status == SPW_OK ? (const char *)config.data : NULL, config.bytes,
                                 &t, error);
    if (status < 0) {
        spw_error_prefix(error, "%s", dir);
        goto out;
    }
    /* newer folders keep the chat template in a file of its own */
    status = read_file(dir, "chat_template.jinja", TEMPLATE_BYTES_MAX, &template, error);
    if (status == SPW_OK) {
        char *text = strdup(spw_buffer_text(&template));
        if (!text) {
            status = spw_fail(error, SPW_NO_MEMORY, "no memory for the chat template");
            goto out;
        }
        free(t->setting[4]);
        t->setting[4] = text;
    } else if (status == SPW_NOT_FOUND) {
        status = SPW_OK;
    }
    if (status == SPW_OK) {
        *out_tokenizer = t;
        t = NULL;
    }
out:
    spw_tokenizer_close(t);
    spw_buffer_done(&json);
    spw_buffer_done(&config);
    spw_buffer_done(&template);
    return status;
}

void spw_tokenizer_close(struct spw_tokenizer *t)
{
    if (!t)
        return;
    spw_tok_steps_done(&t->normalizer);
    spw_tok_steps_done(&t->pre);
    free(t->decoder.replace);
    free(t->decoder.by);
    free(t->entries);
    spw_buffer_done(&t->pool);
    free(t->contents.slots);
    free(t->words.slots);
    free(t->merges);
    free(t->merged);
    free(t->raw_added.nodes);
    free(t->normalized_added.nodes);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(t->setting); i++)
        free(t->setting[i]);
    free(t);
}

/* ---- asking ---- */

uint32_t spw_tokenizer_vocab(const struct spw_tokenizer *t)
{
    return t->vocab;
}

int32_t spw_tokenizer_id(const struct spw_tokenizer *t, const char *content)
{
    uint32_t id = spw_tok_find(t, &t->contents, content, strlen(content));
    return id == SPW_TOK_NONE ? -1 : (int32_t)id;
}

const char *spw_tokenizer_content(const struct spw_tokenizer *t, int32_t id)
{
    if (id < 0 || (uint32_t)id >= t->vocab || !t->entries[id].flags)
        return NULL;
    return (const char *)t->pool.data + t->entries[id].content_at;
}

bool spw_tokenizer_is_special(const struct spw_tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocab && t->entries[id].flags & SPW_TOK_SPECIAL;
}

/* ---- encoding ---- */

void spw_tok_work_init(struct spw_tok_work *work, struct spw_token_list *out, size_t tokens_max)
{
    *work = (struct spw_tok_work){.out = out, .tokens_max = tokens_max};
    struct spw_buffer *buffers[] = {&work->text, &work->other, &work->piece, &work->other_piece};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(buffers); i++)
        spw_buffer_init(buffers[i], SPW_TOK_TEXT_BYTES_MAX);
    work->match = pcre2_match_data_create(1, NULL);
    work->limits = pcre2_match_context_create(NULL);
    work->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK_BYTES, NULL);
    if (!work->match || !work->limits) {
        work->status = SPW_NO_MEMORY;
        return;
    }
    pcre2_set_match_limit(work->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(work->limits, MATCH_HEAP_KIB);
    if (work->stack)
        pcre2_jit_stack_assign(work->limits, NULL, work->stack);
}

void spw_tok_work_done(struct spw_tok_work *work)
{
    spw_buffer_done(&work->text);
    spw_buffer_done(&work->other);
    spw_buffer_done(&work->piece);
    spw_buffer_done(&work->other_piece);
    free(work->spans.at);
    free(work->next.at);
    free(work->cuts.at);
    free(work->symbols);
    free(work->heap);
    pcre2_match_data_free(work->match);
    pcre2_match_context_free(work->limits);
    pcre2_jit_stack_free(work->stack);
}

static void encode_words(struct spw_tok_work *work, const struct spw_tokenizer *t,
                         const uint8_t *text, size_t bytes, bool at_start)
{
    spw_tok_pre_tokenize(work, &t->pre, text, bytes, at_start);
    for (size_t i = 0; i < work->spans.count && work->status == SPW_OK; i++) {
        struct spw_tok_span span = work->spans.at[i];
        spw_tok_bpe(work, t, work->base + span.start, span.end - span.start);
    }
}

static void encode_normalized(struct spw_tok_work *work, const struct spw_tokenizer *t,
                              const uint8_t *piece, size_t piece_bytes, bool at_start,
                              bool with_special)
{
    spw_tok_normalize(work, &t->normalizer, piece, piece_bytes);
    const uint8_t *text = work->text.data;
    size_t bytes = work->text.bytes, done = 0;
    while (work->status == SPW_OK && done < bytes) {
        uint32_t id;
        size_t start, end;
        if (!spw_tok_added_next(t, &t->normalized_added, text, bytes, done, with_special, &id,
                                &start, &end)) {
            encode_words(work, t, text + done, bytes - done, at_start && done == 0);
            return;
        }
        if (start > done)
            encode_words(work, t, text + done, start - done, at_start && done == 0);
        spw_tok_emit(work, id);
        done = end;
    }
}

static void encode_text(struct spw_tok_work *work, const struct spw_tokenizer *t,
                        const uint8_t *text, size_t bytes, bool with_special)
{
    size_t done = 0;
    while (work->status == SPW_OK && done < bytes) {
        uint32_t id;
        size_t start, end;
        if (!spw_tok_added_next(t, &t->raw_added, text, bytes, done, with_special, &id, &start,
                                &end)) {
            encode_normalized(work, t, text + done, bytes - done, done == 0, with_special);
            return;
        }
        if (start > done)
            encode_normalized(work, t, text + done, start - done, done == 0, with_special);
        spw_tok_emit(work, id);
        done = end;
    }
}

enum spw_status spw_tokenizer_encode(const struct spw_tokenizer *t, const char *text, size_t bytes,
                                     unsigned flags, size_t tokens_max,
                                     struct spw_token_list *out_ids)
{
    if (bytes > SPW_TOK_TEXT_BYTES_MAX / 4)
        return SPW_TOO_LARGE;
    size_t before = out_ids->count;
    bool whole = (flags & SPW_TOKENIZE_ADD_SPECIAL) != 0;
    struct spw_buffer mended;
    spw_buffer_init(&mended, SPW_TOK_TEXT_BYTES_MAX);
    const uint8_t *at = (const uint8_t *)text;
    if (spw_tok_utf8_valid(at, bytes) < bytes) {
        spw_tok_utf8_mend(at, bytes, &mended);
        at = mended.data;
        bytes = mended.bytes;
    }
    struct spw_tok_work work;
    spw_tok_work_init(&work, out_ids, tokens_max);
    if (mended.failed)
        work.status = SPW_NO_MEMORY;
    for (uint32_t i = 0; whole && i < t->prefix_count; i++)
        spw_tok_emit(&work, (uint32_t)t->prefix[i]);
    encode_text(&work, t, at, bytes, (flags & SPW_TOKENIZE_PARSE_SPECIAL) != 0);
    for (uint32_t i = 0; whole && i < t->suffix_count; i++)
        spw_tok_emit(&work, (uint32_t)t->suffix[i]);
    enum spw_status status = work.status;
    spw_tok_work_done(&work);
    spw_buffer_done(&mended);
    if (status < 0)
        out_ids->count = before;
    return status;
}
