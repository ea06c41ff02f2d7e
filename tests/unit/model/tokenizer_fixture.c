#include "tests/unit/model/tokenizer_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* U+0120 is the space of the byte-level alphabet, U+2581 that of SentencePiece. */
const char *const fixture_words_merges[] = {"\xc4\xa0 t",
                                            "h e",
                                            "\xc4\xa0t he",
                                            "l l",
                                            "e r",
                                            "i n",
                                            "\xc4\xa0 w",
                                            "o r",
                                            "' s",
                                            "\xc4\xa0w or",
                                            "he ll",
                                            "hell o",
                                            "1 2",
                                            "12 3",
                                            "\xc3\x83 \xc2\xa9",
                                            "\xc4\xa0 \xc4\xa0",
                                            "l d",
                                            "a a",
                                            "aa aa",
                                            NULL};
const char *const fixture_spm_merges[] = {"\xe2\x96\x81 t",
                                          "h e",
                                          "\xe2\x96\x81t he",
                                          "l l",
                                          "e r",
                                          "\xe2\x96\x81 \xe2\x96\x81",
                                          "\xe2\x96\x81 w",
                                          "o r",
                                          "he ll",
                                          "\xe2\x96\x81 hell",
                                          "\xe2\x96\x81hell o",
                                          "\xe2\x96\x81w or",
                                          "a a",
                                          "aa aa",
                                          "l d",
                                          "\xe2\x96\x81\xe2\x96\x81 \xe2\x96\x81\xe2\x96\x81",
                                          NULL};

static void add_code(struct spw_buffer *out, unsigned code)
{
    if (code == '"' || code == '\\')
        spw_buffer_add_u8(out, '\\');
    if (code < 0x80) {
        spw_buffer_add_u8(out, (uint8_t)code);
    } else {
        spw_buffer_add_u8(out, (uint8_t)(0xc0 | code >> 6));
        spw_buffer_add_u8(out, (uint8_t)(0x80 | (code & 0x3f)));
    }
}

static unsigned add_bytes(struct spw_buffer *out)
{
    unsigned id = 0;
    for (unsigned code = 0x21; code < 0x144; code++) {
        if (code == 0x7f || (code > 0x7f && code < 0xa1) || code == 0xad)
            continue; /* not printable: these bytes have the code points from 0x100 on */
        spw_buffer_add_text(out, "\"");
        add_code(out, code);
        spw_buffer_format(out, "\":%u,", id++);
    }
    return id;
}

static unsigned add_pieces(struct spw_buffer *out)
{
    unsigned id = 0;
    static const char *const first[] = {"<unk>", "<s>", "</s>"};
    for (; id < 3; id++)
        spw_buffer_format(out, "\"%s\":%u,", first[id], id);
    for (; id < 259; id++)
        spw_buffer_format(out, "\"<0x%02X>\":%u,", id - 3, id);
    spw_buffer_format(out, "\"\xe2\x96\x81\":%u,", id++);
    for (char letter = 'a'; letter <= 'z'; letter++)
        spw_buffer_format(out, "\"%c\":%u,", letter, id++);
    return id;
}

void fixture_json(const struct fixture *f, struct spw_buffer *out)
{
    static const char byte_level[] =
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true}";
    static const char spm_decoder[] =
        "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":"
        "\"\xe2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
        "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}";
    static const char spm_normalizer[] =
        "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81"
        "\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}]}";
    static const char spm_model[] =
        "\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,";
    static const char *const none[] = {NULL};
    const char *normalizer = f->spm ? spm_normalizer : "null";
    const char *const *merges = f->merges ? f->merges : none;
    spw_buffer_format(out,
                      "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
                      "\"added_tokens\":%s,\"normalizer\":%s,\"pre_tokenizer\":%s,",
                      f->added ? f->added : "[]", f->normalizer ? f->normalizer : normalizer,
                      f->pre_tokenizer ? f->pre_tokenizer : (f->spm ? "null" : byte_level));
    spw_buffer_format(out, "\"post_processor\":%s,\"decoder\":%s,",
                      f->post_processor ? f->post_processor : "null",
                      f->decoder ? f->decoder : (f->spm ? spm_decoder : byte_level));
    spw_buffer_format(out, "\"model\":{\"type\":\"BPE\",%s\"vocab\":{",
                      f->model ? f->model : (f->spm ? spm_model : ""));
    unsigned id = f->spm ? add_pieces(out) : add_bytes(out);
    for (size_t i = 0; merges[i]; i++) {
        const char *space = strchr(merges[i], ' ');
        spw_buffer_format(out, "\"%.*s%s\":%u,", (int)(space - merges[i]), merges[i], space + 1,
                          id++);
    }
    out->bytes--; /* the last comma */
    spw_buffer_add_text(out, "},\"merges\":[");
    for (size_t i = 0; merges[i]; i++)
        spw_buffer_format(out, "%s\"%s\"", i ? "," : "", merges[i]);
    spw_buffer_add_text(out, "]}}");
}

struct spw_tokenizer *fixture_open(const struct fixture *fixture)
{
    struct spw_buffer json;
    spw_buffer_init(&json, 16 << 20);
    fixture_json(fixture, &json);
    assert_false(json.failed);
    struct spw_tokenizer *tokenizer = NULL;
    struct spw_error error = {{0}};
    if (spw_tokenizer_parse((const char *)json.data, json.bytes, NULL, 0, &tokenizer, &error) < 0)
        fail_msg("%s", error.text);
    spw_buffer_done(&json);
    return tokenizer;
}
