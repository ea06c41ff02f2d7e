/* Whose request it is, as gRPC clients say it. */
#include "proto/grpc_wire.h"
#include "proto/message.h"
#include "proto/spillway.pb-c.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/door_grpc.h"
#include "tests/unit/proto/fake_service.h"
#include "tests/unit/proto/raw_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct fake_service fake;
static struct spw_door_grpc *grpc;

static int start(void **state)
{
    (void)state;
    struct spw_error error = {{0}};
    spw_log_level_set(SPW_LOG_ERROR);
    fake_service_init(&fake);
    struct spw_door_grpc_config config = {.service = &fake.service,
                                          .wake_loop = fake_service_wake,
                                          .wake_context = &fake,
                                          .tcp = "127.0.0.1:0"};
    if (spw_door_grpc_start(&config, &grpc, &error) != SPW_OK)
        return -1;
    fake_service_start(&fake, spw_door_grpc_door(grpc));
    return 0;
}

static int stop(void **state)
{
    (void)state;
    fake_service_stop(&fake);
    spw_door_grpc_stop(grpc, 2 * SPW_SECOND);
    fake_service_done(&fake);
    return 0;
}

/* Whose request it is: metadata, field, or both alike. */
static void tenants(void **state)
{
    (void)state;
    static const struct {
        const char *metadata, *field;
        uint32_t tenant;
        const char *words; /* of a refusal; NULL: none */
    } rows[] = {
        {NULL, "", 0, NULL},
        {NULL, "web", 2, NULL},
        {"research", "", 1, NULL},
        {"web", "web", 2, NULL},
        {"default", "", 0, NULL},
        {"nobody", "", 0,
         "x-spillway-tenant is 'nobody': this deployment has no such tenant, the key tenants of "
         "its site file names them"},
        {"", "", 0, "x-spillway-tenant is ''"},
        {NULL, "Web", 0, "tenant is 'Web': this deployment has no such tenant"},
        {"research", "web", 0,
         "x-spillway-tenant is 'research' and the field tenant is 'web': set one of them, or both "
         "alike"},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        struct raw_client raw;
        struct spw_buffer body, packed;
        Spillway__V1__GenerateRequest request = SPILLWAY__V1__GENERATE_REQUEST__INIT;
        const struct raw_header extra[] = {
            {rows[i].metadata ? "x-spillway-tenant" : NULL, rows[i].metadata}, {NULL, NULL}};
        request.input_case = SPILLWAY__V1__GENERATE_REQUEST__INPUT_TEXT;
        request.text = (ProtobufCBinaryData){3, (uint8_t *)"abc"};
        request.max_tokens = 3;
        request.tenant = (char *)(uintptr_t)rows[i].field;
        spw_buffer_init(&packed, 1000);
        spw_buffer_init(&body, 1000);
        spw_message_pack(&request.base, &packed);
        raw_frame(&body, packed.data, packed.bytes);
        atomic_store(&fake.tenant, 99);
        raw_open(&raw, raw_connect(spw_door_grpc_address(grpc)), false, 0);
        struct raw_stream *stream = raw_request(&raw, "/spillway.v1.Spillway/Generate", body.data,
                                                body.bytes, false, extra);
        assert_true(raw_run(&raw, stream, 5000));
        assert_int_equal(stream->grpc_status,
                         rows[i].words ? SPW_GRPC_INVALID_ARGUMENT : SPW_GRPC_OK);
        assert_int_equal(atomic_load(&fake.tenant), rows[i].words ? 99 : rows[i].tenant);
        if (rows[i].words && !strstr(stream->message, rows[i].words))
            fail_msg("'%s' is not in '%s'", rows[i].words, stream->message);
        raw_close(&raw);
        spw_buffer_done(&body);
        spw_buffer_done(&packed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tenants, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
