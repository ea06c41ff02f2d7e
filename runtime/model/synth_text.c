/* synth_text.c - the JSON files of a synthetic folder. */
#include "runtime/model/synth_int.h"

#include <stdio.h>

/* Ids relative to the first special token, as in the Llama 3 vocabulary. */
enum { BEGIN_OF_TEXT = 0, END_OF_TEXT = 1, EOM = 8, EOT = 9, SPECIALS_NAMED = 11 };

static void special_name(uint32_t index, char out_name[64])
{
    static const char *const names[SPECIALS_NAMED] = {
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|reserved_special_token_0|>",
        "<|reserved_special_token_1|>",
        "<|finetune_right_pad_id|>",
        "<|reserved_special_token_2|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|python_tag|>",
    };
    if (index < SPECIALS_NAMED)
        snprintf(out_name, 64, "%s", names[index]);
    else
        snprintf(out_name, 64, "<|reserved_special_token_%u|>", index - SPECIALS_NAMED + 3);
}

static const char *dtype_text(enum spw_dtype dtype)
{
    return dtype == SPW_DTYPE_F32 ? "float32" : dtype == SPW_DTYPE_F16 ? "float16" : "bfloat16";
}

void spw_synth_config(const struct spw_synth_shape *shape, enum spw_dtype dtype,
                      struct spw_buffer *out_text)
{
    uint32_t first = shape->vocab - shape->specials;
    spw_buffer_format(out_text,
                      "{\n  \"architectures\": [\"LlamaForCausalLM\"],\n"
                      "  \"attention_bias\": false,\n  \"attention_dropout\": 0.0,\n"
                      "  \"bos_token_id\": %u,\n  \"eos_token_id\": [%u, %u, %u],\n"
                      "  \"head_dim\": %u,\n  \"hidden_act\": \"silu\",\n  \"hidden_size\": %u,\n"
                      "  \"initializer_range\": 0.02,\n  \"intermediate_size\": %u,\n"
                      "  \"max_position_embeddings\": %u,\n  \"mlp_bias\": false,\n"
                      "  \"model_type\": \"llama\",\n  \"num_attention_heads\": %u,\n"
                      "  \"num_hidden_layers\": %u,\n  \"num_key_value_heads\": %u,\n"
                      "  \"pretraining_tp\": 1,\n  \"rms_norm_eps\": 1e-05,\n",
                      first + BEGIN_OF_TEXT, first + END_OF_TEXT, first + EOM, first + EOT,
                      shape->head_dim, shape->hidden, shape->ffn, shape->context, shape->heads,
                      shape->layers, shape->kv_heads);
    if (shape->rope_factor > 0)
        spw_buffer_format(out_text,
                          "  \"rope_scaling\": {\"factor\": %.1f, \"high_freq_factor\": 4.0, "
                          "\"low_freq_factor\": 1.0, \"original_max_position_embeddings\": %u, "
                          "\"rope_type\": \"llama3\"},\n",
                          shape->rope_factor, shape->rope_original);
    else
        spw_buffer_add_text(out_text, "  \"rope_scaling\": null,\n");
    spw_buffer_format(out_text,
                      "  \"rope_theta\": %.1f,\n  \"tie_word_embeddings\": %s,\n"
                      "  \"torch_dtype\": \"%s\",\n  \"use_cache\": true,\n"
                      "  \"vocab_size\": %u\n}\n",
                      shape->rope_theta, shape->tied ? "true" : "false", dtype_text(dtype),
                      shape->vocab);
}

void spw_synth_generation(const struct spw_synth_shape *shape, struct spw_buffer *out_text)
{
    uint32_t first = shape->vocab - shape->specials;
    spw_buffer_format(out_text,
                      "{\n  \"bos_token_id\": %u,\n  \"do_sample\": true,\n"
                      "  \"eos_token_id\": [%u, %u, %u],\n  \"temperature\": 0.6,\n"
                      "  \"top_p\": 0.9\n}\n",
                      first + BEGIN_OF_TEXT, first + END_OF_TEXT, first + EOM, first + EOT);
}

/* The character that stands for a byte in a byte-level vocabulary (GPT-2's map): printable Latin-1
 * stands for itself, the rest for U+0100 and on, in order.
 */
static uint32_t byte_character(uint32_t byte)
{
    uint32_t rank = 0;
    for (uint32_t b = 0; b <= byte; b++) {
        bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad);
        if (b == byte)
            return printable ? b : 0x100 + rank;
        rank += !printable;
    }
    return 0;
}

void spw_synth_tokenizer(const struct spw_synth_shape *shape, struct spw_buffer *out_text)
{
    uint32_t first = shape->vocab - shape->specials;
    char name[64];
    assert(first > 256 && shape->specials >= SPECIALS_NAMED);
    spw_buffer_add_text(out_text, "{\n\"version\": \"1.0\",\n\"truncation\": null,\n"
                                  "\"padding\": null,\n\"added_tokens\": [\n");
    for (uint32_t i = 0; i < shape->specials; i++) {
        special_name(i, name);
        spw_buffer_format(out_text,
                          "{\"id\": %u, \"content\": \"%s\", \"single_word\": false, "
                          "\"lstrip\": false, \"rstrip\": false, \"normalized\": false, "
                          "\"special\": true}%s\n",
                          first + i, name, i + 1 < shape->specials ? "," : "");
    }
    special_name(BEGIN_OF_TEXT, name);
    spw_buffer_format(
        out_text,
        "],\n\"normalizer\": null,\n"
        "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
        "\"trim_offsets\": true, \"use_regex\": true},\n"
        "\"post_processor\": {\"type\": \"TemplateProcessing\", "
        "\"single\": [{\"SpecialToken\": {\"id\": \"%s\", \"type_id\": 0}}, "
        "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], "
        "\"pair\": [{\"SpecialToken\": {\"id\": \"%s\", \"type_id\": 0}}, "
        "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, "
        "{\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}], "
        "\"special_tokens\": {\"%s\": {\"id\": \"%s\", \"ids\": [%u], \"tokens\": [\"%s\"]}}},\n"
        "\"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
        "\"trim_offsets\": true, \"use_regex\": true},\n"
        "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
        "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, "
        "\"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": false,\n"
        "\"vocab\": {",
        name, name, name, name, first, name);
    for (uint32_t id = 0; id < first; id++) {
        if (id >= 256) { /* no merge leads here: seen in answers, never in prompts */
            spw_buffer_format(out_text, ",\n\"\\u0120w%u\": %u", id, id);
            continue;
        }
        spw_buffer_format(out_text, "%s\n\"\\u%04x\": %u", id ? "," : "", byte_character(id), id);
    }
    spw_buffer_add_text(out_text, "\n},\n\"merges\": []}\n}\n");
}

void spw_synth_tokenizer_config(const struct spw_synth_shape *shape, struct spw_buffer *out_text)
{
    spw_buffer_format(
        out_text,
        "{\n  \"bos_token\": \"<|begin_of_text|>\",\n  \"eos_token\": \"<|eot_id|>\",\n"
        "  \"clean_up_tokenization_spaces\": false,\n  \"model_max_length\": %u,\n"
        "  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n"
        "  \"chat_template\": \"{{ bos_token }}{%% for message in messages %%}"
        "<|start_header_id|>{{ message.role }}<|end_header_id|>\\n\\n{{ message.content }}"
        "<|eot_id|>{%% endfor %%}{%% if add_generation_prompt %%}"
        "<|start_header_id|>assistant<|end_header_id|>\\n\\n{%% endif %%}\"\n}\n",
        shape->context);
}
