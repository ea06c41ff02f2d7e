/* load_prompt.c - prompts of a wanted length, equal where the trace says that they are.
 *
 * A token (or word) is a function of (seed, prefix id, place in its block), and beyond the prefix
 * of (seed, request, place): nothing is stored, and any run of the same seed asks the same.
 */
#include "runtime/base/rng.h"
#include "runtime/bench/load_int.h"
#include "runtime/model/tokenizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum kind { KIND_PREFIX = 1, KIND_REQUEST, KIND_MEASURE };

/* Common short words: one token each in most vocabularies. */
static const char *const words[] = {
    "the",   "and",   "for",  "you",   "not",   "are",   "all",   "new",   "was",   "can",
    "one",   "two",   "out",  "use",   "how",   "our",   "who",   "now",   "get",   "way",
    "day",   "man",   "may",  "any",   "old",   "see",   "part",  "year",  "work",  "back",
    "just",  "over",  "know", "well",  "down",  "make",  "good",  "look",  "take",  "time",
    "hand",  "high",  "last", "left",  "life",  "line",  "list",  "long",  "name",  "next",
    "open",  "page",  "play", "read",  "real",  "right", "room",  "said",  "same",  "seen",
    "set",   "show",  "side", "small", "some",  "state", "still", "such",  "table", "tell",
    "than",  "that",  "them", "then",  "there", "they",  "thing", "think", "this",  "three",
    "turn",  "under", "very", "want",  "water", "week",  "what",  "when",  "where", "which",
    "while", "white", "with", "word",  "world", "write", "black", "book",  "call",  "case",
    "city",  "come",  "door", "each",  "end",   "face",  "fact",  "find",  "first", "food",
    "form",  "four",  "free", "full",  "game",  "give",  "go",    "great", "group", "have",
    "head",  "help",  "here", "home",  "house", "idea",  "keep",  "kind"};

enum spw_status spw_load_prompts_open(struct spw_load_prompts *prompts, const char *tokenizer,
                                      uint64_t seed, struct spw_error *error)
{
    struct spw_tokenizer *opened = NULL;
    *prompts = (struct spw_load_prompts){.seed = seed, .tokens_per_word = 1};
    if (!tokenizer)
        return SPW_OK;
    enum spw_status status = spw_tokenizer_open(tokenizer, &opened, error);
    if (status)
        return status;
    uint32_t vocab = spw_tokenizer_vocab(opened);
    prompts->ids = calloc(SPW_MAX(vocab, 1u), sizeof(*prompts->ids));
    for (uint32_t id = 0; id < vocab && prompts->ids; id++)
        if (spw_tokenizer_content(opened, (int32_t)id) &&
            !spw_tokenizer_is_special(opened, (int32_t)id))
            prompts->ids[prompts->id_count++] = (int32_t)id;
    spw_tokenizer_close(opened);
    if (prompts->id_count > 0)
        return SPW_OK;
    status = spw_fail(error, prompts->ids ? SPW_INVALID : SPW_NO_MEMORY,
                      "the tokenizer in %s has no ordinary tokens", tokenizer);
    spw_load_prompts_done(prompts);
    return status;
}

void spw_load_prompts_done(struct spw_load_prompts *prompts)
{
    free(prompts->ids);
    *prompts = (struct spw_load_prompts){0};
}

/* Draws in order of place; one block of the generator gives four. */
struct draws {
    uint64_t key, at;
    struct spw_rng_block block;
};

static void begin_draws(struct draws *draws, uint64_t seed, enum kind kind, uint64_t which)
{
    struct spw_rng_block block = spw_rng_philox(seed, which, kind);
    *draws = (struct draws){.key = block.word[0] | (uint64_t)block.word[1] << 32};
}

static uint32_t next_draw(struct draws *draws, uint32_t below)
{
    if (draws->at % 4 == 0)
        draws->block = spw_rng_philox(draws->key, draws->at / 4, 0);
    /* multiply and shift: no modulo, bias below 2^-20 for any vocabulary */
    return (uint32_t)((uint64_t)draws->block.word[draws->at++ % 4] * below >> 32);
}

static void add_one(const struct spw_load_prompts *prompts, struct draws *draws, bool first,
                    struct spw_buffer *out)
{
    if (!prompts->ids) {
        if (!first)
            spw_buffer_add_u8(out, ' ');
        spw_buffer_add_text(out, words[next_draw(draws, SPW_ARRAY_COUNT(words))]);
        return;
    }
    char digits[12], *at = digits + sizeof(digits);
    uint32_t id = (uint32_t)prompts->ids[next_draw(draws, prompts->id_count)];
    do
        *--at = (char)('0' + id % 10);
    while ((id /= 10) > 0);
    if (!first)
        *--at = ',';
    spw_buffer_add(out, at, (size_t)(digits + sizeof(digits) - at));
}

/* Tokens as ids or words. */
static double units(const struct spw_load_prompts *prompts, double tokens)
{
    return prompts->ids ? tokens : tokens / prompts->tokens_per_word;
}

void spw_load_prompts_add(const struct spw_load_prompts *prompts, const struct spw_load_plan *plan,
                          size_t index, struct spw_buffer *out)
{
    const struct spw_trace_request *request = &plan->trace.requests[index];
    double before = prompts->ids ? 0 : prompts->tokens_before;
    double wanted = round(units(prompts, fmax(request->prompt_tokens - before, 1)));
    uint64_t count = (uint64_t)fmax(wanted, 1), done = 0;
    uint64_t block = (uint64_t)fmax(round(units(prompts, plan->block_tokens)), 1);
    struct draws draws;
    spw_buffer_add_u8(out, prompts->ids ? '[' : '"');
    for (uint32_t b = 0; b < request->prefix_count && done < count; b++) {
        begin_draws(&draws, prompts->seed, KIND_PREFIX,
                    plan->trace.prefix[request->prefix_begin + b]);
        for (uint64_t i = 0; i < block && done < count; i++, done++)
            add_one(prompts, &draws, done == 0, out);
    }
    begin_draws(&draws, prompts->seed, KIND_REQUEST, index);
    for (; done < count; done++)
        add_one(prompts, &draws, done == 0, out);
    spw_buffer_add_u8(out, prompts->ids ? ']' : '"');
}

void spw_load_prompts_words(const struct spw_load_prompts *prompts, uint64_t which, uint32_t count,
                            struct spw_buffer *out)
{
    struct draws draws;
    begin_draws(&draws, prompts->seed, KIND_MEASURE, which);
    spw_buffer_add_u8(out, '"');
    for (uint32_t i = 0; i < count; i++)
        add_one(prompts, &draws, i == 0, out);
    spw_buffer_add_u8(out, '"');
}
