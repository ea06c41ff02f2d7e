/* Reading helpers, the post processor, and tokenizer_config.json. */
#include "runtime/model/tokenizer_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const setting_keys[] = {"bos_token", "eos_token", "unk_token", "pad_token",
                                           "chat_template"};

enum spw_status spw_tok_keys(const json_t *object, const char *where, const char *known,
                             struct spw_error *error)
{
    if (!json_is_object(object))
        return spw_fail(error, SPW_INVALID, "%s is not an object", where);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        char word[64];
        snprintf(word, sizeof(word), " %s ", key);
        if (strlen(key) > 60 || strchr(key, ' ') || !strstr(known, word))
            return spw_fail(error, SPW_UNSUPPORTED, "%s: \"%.64s\" is not supported", where, key);
    }
    return SPW_OK;
}

const char *spw_tok_type(const json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "?";
}

enum spw_status spw_tok_bool(const json_t *object, const char *where, const char *key,
                             bool otherwise, bool *out_value, struct spw_error *error)
{
    const json_t *value = json_object_get(object, key);
    if (value && !json_is_boolean(value) && !json_is_null(value))
        return spw_fail(error, SPW_INVALID, "%s: \"%s\" is not true or false", where, key);
    *out_value = json_is_boolean(value) ? json_is_true(value) : otherwise;
    return SPW_OK;
}

/* ---- post processor ---- */

static bool put_front(struct spw_tokenizer *t, uint32_t id)
{
    if (t->prefix_count == SPW_TOK_TEMPLATE_MAX)
        return false;
    t->prefix[t->prefix_count++] = (int32_t)id;
    return true;
}

static bool put_back(struct spw_tokenizer *t, uint32_t id)
{
    if (t->suffix_count == SPW_TOK_TEMPLATE_MAX)
        return false;
    t->suffix[t->suffix_count++] = (int32_t)id;
    return true;
}

/* The ids that one {"SpecialToken": ...} of a template stands for. */
static enum spw_status add_special(struct spw_tokenizer *t, const json_t *item,
                                   const json_t *specials, bool behind, struct spw_error *error)
{
    const char *name = json_string_value(json_object_get(item, "id"));
    const json_t *ids = json_object_get(name ? json_object_get(specials, name) : NULL, "ids");
    if (!json_is_array(ids))
        return spw_fail(error, SPW_INVALID,
                        "post_processor: special_tokens has no ids for \"%.64s\"",
                        name ? name : "?");
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *value = json_array_get(ids, i);
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= t->vocab || !t->entries[id].flags)
            return spw_fail(error, SPW_INVALID, "post_processor: \"%.64s\" has an unknown id",
                            name);
        if (!(behind ? put_back : put_front)(t, (uint32_t)id))
            return spw_fail(error, SPW_TOO_LARGE, "post_processor: more than %u special tokens",
                            SPW_TOK_TEMPLATE_MAX);
    }
    return SPW_OK;
}

/* Only "single" is of use; pairs of texts are no matter of text generation. */
static enum spw_status load_template(struct spw_tokenizer *t, const json_t *object,
                                     struct spw_error *error)
{
    enum spw_status status =
        spw_tok_keys(object, "post_processor", " type single pair special_tokens ", error);
    if (status < 0)
        return status;
    if (t->prefix_count || t->suffix_count)
        return spw_fail(error, SPW_UNSUPPORTED,
                        "post_processor: two TemplateProcessing are not supported");
    const json_t *single = json_object_get(object, "single");
    const json_t *specials = json_object_get(object, "special_tokens");
    unsigned texts = 0;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i);
        const json_t *special = json_object_get(item, "SpecialToken");
        const char *name =
            json_string_value(json_object_get(json_object_get(item, "Sequence"), "id"));
        if (special)
            status = add_special(t, special, specials, texts > 0, error);
        else if (name && strcmp(name, "A") == 0)
            texts++;
        else
            status =
                spw_fail(error, SPW_UNSUPPORTED, "post_processor: single[%zu] is not known", i);
        if (status < 0)
            return status;
    }
    if (texts != 1)
        return spw_fail(error, SPW_UNSUPPORTED,
                        "post_processor: \"single\" has the text %u times, not once", texts);
    return SPW_OK;
}

enum spw_status spw_tok_post_load(struct spw_tokenizer *t, const json_t *object,
                                  struct spw_error *error)
{
    if (!object || json_is_null(object))
        return SPW_OK;
    const char *type = spw_tok_type(object);
    if (strcmp(type, "ByteLevel") == 0) /* moves offsets, changes no ids */
        return spw_tok_keys(object, "post_processor",
                            " type add_prefix_space trim_offsets use_regex ", error);
    if (strcmp(type, "TemplateProcessing") == 0)
        return load_template(t, object, error);
    if (strcmp(type, "Sequence") != 0)
        return spw_fail(error, SPW_UNSUPPORTED, "post_processor \"%.64s\" is not supported", type);
    enum spw_status status = spw_tok_keys(object, "post_processor", " type processors ", error);
    const json_t *list = json_object_get(object, "processors");
    for (size_t i = 0; i < json_array_size(list) && status == SPW_OK; i++) {
        const json_t *item = json_array_get(list, i);
        if (strcmp(spw_tok_type(item), "Sequence") == 0)
            return spw_fail(error, SPW_UNSUPPORTED, "post_processor: a Sequence in a Sequence");
        status = spw_tok_post_load(t, item, error);
    }
    return status;
}

/* ---- tokenizer_config.json ---- */

/* A text, or {"content": text}, or a list of {"name", "template"} with one named "default". */
static const char *setting_text(const json_t *value)
{
    if (json_is_string(value))
        return json_string_value(value);
    if (json_is_object(value))
        return json_string_value(json_object_get(value, "content"));
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && strcmp(name, "default") == 0)
            return json_string_value(json_object_get(item, "template"));
    }
    return NULL;
}

/* Tokens that only the config knows would be lost. */
static enum spw_status check_added(const struct spw_tokenizer *t, const json_t *added,
                                   struct spw_error *error)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)added, key, value)
    {
        const char *content = json_string_value(json_object_get(value, "content"));
        char *end;
        unsigned long id = strtoul(key, &end, 10);
        if (!content || *end)
            return spw_fail(error, SPW_INVALID,
                            "tokenizer_config.json: added_tokens_decoder[\"%.32s\"]", key);
        const char *own = id < t->vocab ? spw_tokenizer_content(t, (int32_t)id) : NULL;
        if (!own || strcmp(own, content) != 0)
            return spw_fail(error, SPW_UNSUPPORTED,
                            "tokenizer_config.json: added_tokens_decoder has \"%.64s\" as %lu, "
                            "tokenizer.json has \"%.64s\"",
                            content, id, own ? own : "nothing");
    }
    return SPW_OK;
}

/* These classes of Hugging Face take BOS and EOS from the config, whatever tokenizer.json says. */
static enum spw_status add_by_class(struct spw_tokenizer *t, const json_t *config,
                                    struct spw_error *error)
{
    static const char *const classes[] = {"LlamaTokenizer", "LlamaTokenizerFast",
                                          "CodeLlamaTokenizer", "CodeLlamaTokenizerFast"};
    const char *own = json_string_value(json_object_get(config, "tokenizer_class"));
    bool known = false;
    for (size_t i = 0; own && i < SPW_ARRAY_COUNT(classes); i++)
        known |= strcmp(own, classes[i]) == 0;
    if (!known)
        return SPW_OK;
    static const char *const keys[] = {"add_bos_token", "add_eos_token"};
    t->prefix_count = t->suffix_count = 0;
    for (int end = 0; end < 2; end++) {
        bool add;
        enum spw_status status =
            spw_tok_bool(config, "tokenizer_config.json", keys[end], end == 0, &add, error);
        if (status < 0)
            return status;
        if (!add)
            continue;
        const char *content = t->setting[end];
        int32_t id = content ? spw_tokenizer_id(t, content) : -1;
        if (id < 0)
            return spw_fail(error, SPW_INVALID,
                            "tokenizer_config.json: %s needs %s, which is %s%.64s", keys[end],
                            setting_keys[end], content ? "not in the vocabulary: " : "missing",
                            content ? content : "");
        (void)(end ? put_back : put_front)(t, (uint32_t)id);
    }
    return SPW_OK;
}

enum spw_status spw_tok_config_load(struct spw_tokenizer *t, const json_t *config,
                                    struct spw_error *error)
{
    if (!json_is_object(config))
        return spw_fail(error, SPW_INVALID, "tokenizer_config.json is not an object");
    for (size_t i = 0; i < SPW_ARRAY_COUNT(setting_keys); i++) {
        const char *text = setting_text(json_object_get(config, setting_keys[i]));
        if (text && !(t->setting[i] = strdup(text)))
            return spw_fail(error, SPW_NO_MEMORY, "no memory for tokenizer_config.json");
    }
    enum spw_status status = check_added(t, json_object_get(config, "added_tokens_decoder"), error);
    return status < 0 ? status : add_by_class(t, config, error);
}

const char *spw_tokenizer_setting(const struct spw_tokenizer *t, const char *key)
{
    for (size_t i = 0; i < SPW_ARRAY_COUNT(setting_keys); i++)
        if (strcmp(key, setting_keys[i]) == 0)
            return t->setting[i];
    return NULL;
}
