/* The small parts: percent coding, timeouts, UTF-8, checked unpacking, reflection's look-ups. */
#include "proto/grpc_reflection.h"
#include "proto/grpc_wire.h"
#include "proto/message.h"
#include "proto/spillway.pb-c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void percent_coding(void **state)
{
    (void)state;
    char coded[64], plain[64];
    assert_int_equal(spw_grpc_percent_encode("100% \xc3\xa9\n", coded, sizeof(coded)), 16);
    assert_string_equal(coded, "100%25 %C3%A9%0A");
    assert_int_equal(spw_grpc_percent_decode(coded, strlen(coded), plain, sizeof(plain)), 8);
    assert_string_equal(plain, "100% \xc3\xa9\n");
    assert_int_equal(spw_grpc_percent_decode("%4", 2, plain, sizeof(plain)), 2);
    assert_string_equal(plain, "%4");
    assert_int_equal(spw_grpc_percent_decode("%zz%41", 6, plain, sizeof(plain)), 4);
    assert_string_equal(plain, "%zzA");
    /* cut at whole bytes: "a%25" needs 5 with its zero */
    assert_int_equal(spw_grpc_percent_encode("a%b", coded, 4), 1);
    assert_string_equal(coded, "a");
    assert_int_equal(spw_grpc_percent_encode("a%b", coded, 5), 4);
    assert_string_equal(coded, "a%25");
}

static void timeouts(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ns;
    } good[] = {{"1n", 1},
                {"250m", 250000000},
                {"3S", 3000000000},
                {"2M", 120000000000},
                {"1H", 3600000000000},
                {"7u", 7000},
                {"0S", 0},
                {"99999999H", UINT64_MAX}};
    static const char *const bad[] = {"", "S", "1", "12", "-1S", "1s", "123456789S", "1 S", "1.5S"};
    uint64_t ns;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(good); i++) {
        assert_true(spw_grpc_timeout_parse(good[i].text, strlen(good[i].text), &ns));
        assert_int_equal(ns, good[i].ns);
    }
    for (size_t i = 0; i < SPW_ARRAY_COUNT(bad); i++)
        assert_false(spw_grpc_timeout_parse(bad[i], strlen(bad[i]), &ns));
    static const uint64_t values[] = {0, 1, 99999999, 100000000, 5000000001, UINT64_MAX};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(values); i++) {
        char text[10];
        spw_grpc_timeout_format(values[i], text);
        assert_true(spw_grpc_timeout_parse(text, strlen(text), &ns));
        assert_true(ns >= values[i]);
        assert_true(ns - values[i] <= values[i] / 1000000);
    }
}

static void utf8(void **state)
{
    (void)state;
    static const char *const good[] = {"",
                                       "abc",
                                       "\xc3\xa9",
                                       "\xe2\x82\xac",
                                       "\xf0\x9f\x98\x80",
                                       "\xed\x9f\xbf",
                                       "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\x80",
                                      "\xc3",
                                      "\xc0\x80",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xe2\x82",
                                      "a\xff",
                                      "\xe2\x82\x28"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(good); i++)
        assert_true(spw_grpc_text_valid((const uint8_t *)good[i], strlen(good[i]), false));
    for (size_t i = 0; i < SPW_ARRAY_COUNT(bad); i++)
        assert_false(spw_grpc_text_valid((const uint8_t *)bad[i], strlen(bad[i]), true));
    assert_true(spw_grpc_text_valid((const uint8_t *)"a\0b", 3, true));
    assert_false(spw_grpc_text_valid((const uint8_t *)"a\0b", 3, false));
}

static enum spw_status unpack(const void *data, size_t bytes, ProtobufCMessage **out)
{
    return spw_message_unpack(&spillway__v1__generate_request__descriptor, data, bytes, out, NULL);
}

static void messages(void **state)
{
    (void)state;
    ProtobufCMessage *message;
    /* model = "m", text = "a\0b", temperature = 0 (present) */
    static const uint8_t good[] = {0x0a, 1,    'm',  0x12, 3, 'a', 0, 'b',
                                   0x32, 0x05, 0x0d, 0,    0, 0,   0};
    assert_int_equal(unpack(good, sizeof(good), &message), SPW_OK);
    const Spillway__V1__GenerateRequest *request = (const Spillway__V1__GenerateRequest *)message;
    assert_string_equal(request->model, "m");
    assert_int_equal(request->input_case, SPILLWAY__V1__GENERATE_REQUEST__INPUT_TEXT);
    assert_int_equal(request->text.len, 3);
    assert_memory_equal(request->text.data, "a\0b", 3);
    assert_true(request->sampling->has_temperature_case != 0);
    assert_true(request->sampling->has_seed_case == 0);
    protobuf_c_message_free_unpacked(message, NULL);
    /* nothing at all is a message */
    assert_int_equal(unpack(NULL, 0, &message), SPW_OK);
    protobuf_c_message_free_unpacked(message, NULL);
    /* a name with a zero, and one that is not UTF-8: protobuf-c alone takes both */
    static const uint8_t zero[] = {0x0a, 3, 'a', 0, 'b'}, latin[] = {0x0a, 1, 0xe9};
    assert_int_equal(unpack(zero, sizeof(zero), &message), SPW_INVALID);
    assert_int_equal(unpack(latin, sizeof(latin), &message), SPW_INVALID);
    message = protobuf_c_message_unpack(&spillway__v1__generate_request__descriptor, NULL,
                                        sizeof(zero), zero);
    assert_non_null(message);
    protobuf_c_message_free_unpacked(message, NULL);
    /* the same inside chat.messages[0].role */
    static const uint8_t inside[] = {0x22, 5, 0x0a, 3, 0x0a, 1, 0xe9};
    assert_int_equal(unpack(inside, sizeof(inside), &message), SPW_INVALID);
    /* cut, a length past the end, a group, an endless varint */
    static const uint8_t cut[] = {0x0a}, past[] = {0x0a, 9, 'a'}, group[] = {0x0b, 0x0c};
    static const uint8_t endless[] = {0x28, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1};
    assert_int_equal(unpack(cut, sizeof(cut), &message), SPW_INVALID);
    assert_int_equal(unpack(past, sizeof(past), &message), SPW_INVALID);
    assert_int_equal(unpack(group, sizeof(group), &message), SPW_INVALID);
    assert_int_equal(unpack(endless, sizeof(endless), &message), SPW_INVALID);
}

/* A megabyte of empty stop strings or chat messages would become some 60 MB. */
static void amplification(void **state)
{
    (void)state;
    ProtobufCMessage *message;
    const size_t bytes = 1u << 20;
    uint8_t *data = malloc(bytes);
    assert_non_null(data);
    for (size_t i = 0; i < bytes; i += 2) {
        data[i] = 0x3a; /* stop */
        data[i + 1] = 0;
    }
    assert_int_equal(unpack(data, bytes, &message), SPW_TOO_LARGE);
    free(data);
    /* what people send passes: 200 chat messages of a few bytes */
    uint8_t chat[4 + 200 * 15];
    size_t at = 4;
    for (size_t i = 0; i < 200; i++) {
        static const uint8_t one[15] = {0x0a, 13, 0x0a, 4,   'u', 's', 'e', 'r',
                                        0x12, 5,  'h',  'e', 'l', 'l', 'o'};
        memcpy(chat + at, one, sizeof(one));
        at += sizeof(one);
    }
    chat[0] = 0x22;
    chat[1] = (uint8_t)(0x80 | ((at - 3) & 0x7f));
    chat[2] = (uint8_t)((at - 3) >> 7);
    memmove(chat + 3, chat + 4, at - 4);
    at--;
    chat[1] = (uint8_t)(0x80 | ((at - 3) & 0x7f));
    chat[2] = (uint8_t)((at - 3) >> 7);
    assert_int_equal(unpack(chat, at, &message), SPW_OK);
    assert_int_equal(((Spillway__V1__GenerateRequest *)message)->chat->n_messages, 200);
    protobuf_c_message_free_unpacked(message, NULL);
}

static void reflection_look_ups(void **state)
{
    (void)state;
    size_t bytes, again;
    const uint8_t *file = spw_grpc_reflection_file("spillway.proto", &bytes);
    assert_non_null(file);
    static const char *const ours[] = {"spillway.v1.Spillway", "spillway.v1.Spillway.Generate",
                                       "spillway.v1.GenerateRequest", "spillway.v1.FinishReason",
                                       "spillway.v1.Token"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(ours); i++) {
        assert_ptr_equal(spw_grpc_reflection_symbol(ours[i], &again), file);
        assert_int_equal(again, bytes);
    }
    static const char *const none[] = {"",
                                       "spillway.v1",
                                       "spillway.v1.Spillway.Generat",
                                       "spillway.v1.Nothing",
                                       "spillway.v1.Spillway.Generate.x",
                                       "spillway.v1.Token.id",
                                       "x.spillway.v1.Token"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(none); i++)
        assert_null(spw_grpc_reflection_symbol(none[i], &again));
    assert_null(spw_grpc_reflection_file("spillway", &again));
    assert_non_null(spw_grpc_reflection_file("grpc/health/v1/health.proto", &again));
    assert_ptr_equal(
        spw_grpc_reflection_symbol("grpc.health.v1.HealthCheckResponse.ServingStatus", &bytes),
        spw_grpc_reflection_file("grpc/health/v1/health.proto", &again));
    assert_ptr_not_equal(
        spw_grpc_reflection_symbol("grpc.reflection.v1.ServerReflection", &again),
        spw_grpc_reflection_symbol("grpc.reflection.v1alpha.ServerReflection", &again));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percent_coding), cmocka_unit_test(timeouts),
        cmocka_unit_test(utf8),           cmocka_unit_test(messages),
        cmocka_unit_test(amplification),  cmocka_unit_test(reflection_look_ups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
