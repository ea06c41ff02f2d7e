/* The bytes are a tokenizer.json, up to a line "%%", and a text after it. What opens must encode
 * any text and give the same text from the ids at once and piece by piece, as valid UTF-8.
 */
#include "runtime/model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static bool is_utf8(const uint8_t *text, size_t bytes)
{
    while (bytes > 0) {
        size_t length = text[0] < 0x80 ? 1 : text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : 4;
        if (length > bytes || (text[0] >= 0x80 && text[0] < 0xc2) || text[0] > 0xf4)
            return false;
        for (size_t i = 1; i < length; i++)
            if ((text[i] & 0xc0) != 0x80)
                return false;
        text += length;
        bytes -= length;
    }
    return true;
}

static void check_text(const struct spw_tokenizer *t, const char *text, size_t bytes)
{
    for (unsigned flags = 0; flags < 4; flags++) {
        struct spw_token_list list = {0};
        enum spw_status status = spw_tokenizer_encode(t, text, bytes, flags, 10000, &list);
        if (status == SPW_OK) {
            struct spw_buffer whole, joined;
            spw_buffer_init(&whole, 1 << 24);
            spw_buffer_init(&joined, 1 << 24);
            spw_tokenizer_decode(t, list.ids, list.count, flags & 1, &whole);
            struct spw_detokenizer d;
            spw_detokenizer_init(&d, t, flags & 1, true);
            for (size_t i = 0; i < list.count; i++) {
                assert((uint32_t)list.ids[i] < spw_tokenizer_vocab(t));
                assert(spw_tokenizer_content(t, list.ids[i]));
                size_t from = joined.bytes;
                spw_detokenizer_push(&d, list.ids[i], &joined);
                assert(joined.failed || joined.bytes == from ||
                       is_utf8(joined.data + from, joined.bytes - from));
            }
            spw_detokenizer_flush(&d, &joined);
            assert(whole.failed || joined.failed || whole.bytes == joined.bytes);
            assert(whole.failed || joined.failed || whole.bytes == 0 ||
                   memcmp(whole.data, joined.data, whole.bytes) == 0);
            spw_buffer_done(&whole);
            spw_buffer_done(&joined);
        } else {
            assert(list.count == 0);
        }
        spw_token_list_done(&list);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const char fixed[] =
        "Hello  the world's\n\n12345 \xc3\xa9\xe4\xbd\xa0\xf0\x9f\x98\x80\xff "
        "e\xcc\x81 <s><|a|> \xe2\x96\x81\xe2\x96\x81"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const char *json = (const char *)data, *text = "";
    size_t json_bytes = bytes, text_bytes = 0;
    const char *end = bytes > 0 ? memmem(data, bytes, "\n%%\n", 4) : NULL;
    if (end) {
        json_bytes = (size_t)(end - json);
        text = end + 4;
        text_bytes = bytes - json_bytes - 4;
    }
    struct spw_tokenizer *t = NULL;
    struct spw_error error = {{0}};
    static const char config[] = "{\"bos_token\":\"a\",\"tokenizer_class\":\"LlamaTokenizer\"}";
    bool with_config = bytes % 4 == 3;
    enum spw_status status =
        spw_tokenizer_parse(json ? json : "", json_bytes, with_config ? config : NULL,
                            with_config ? sizeof(config) - 1 : 0, &t, &error);
    assert((status == SPW_OK) == (t != NULL));
    assert(status == SPW_OK || error.text[0]);
    if (t) {
        check_text(t, fixed, sizeof(fixed) - 1);
        check_text(t, text, text_bytes < 500 ? text_bytes : 500);
    }
    spw_tokenizer_close(t);
    return 0;
}
