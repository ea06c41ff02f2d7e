/* fake_server_main.c - the gRPC door over the fake service, for clients in other languages.
 *
 * usage: spw_grpc_fake_server [HOST:PORT [UNIX_PATH]]   prints "ready grpc=HOST:PORT"; ends with
 * its standard input.
 */
#include "runtime/base/clock.h"
#include "runtime/door_grpc.h"
#include "runtime/model/chat_template.h"
#include "tests/unit/proto/fake_service.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    static const char source[] = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
                                 "{% if add_generation_prompt %}<assistant>{% endif %}";
    static struct fake_service fake;
    struct spw_chat_template *chat_template = NULL;
    struct spw_error error = {{0}};
    fake_service_init(&fake);
    if (spw_chat_template_compile(source, strlen(source), &chat_template, &error) != SPW_OK) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    fake.service.chat_template = chat_template;
    atomic_store(&fake.tokens_per_turn, 1);
    atomic_store(&fake.turn_us, 2000);
    struct spw_door_grpc_config config = {
        .service = &fake.service,
        .wake_loop = fake_service_wake,
        .wake_context = &fake,
        .tcp = argc > 1 ? argv[1] : "127.0.0.1:0",
        .unix_path = argc > 2 ? argv[2] : NULL,
    };
    struct spw_door_grpc *grpc;
    if (spw_door_grpc_start(&config, &grpc, &error) != SPW_OK) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    fake_service_start(&fake, spw_door_grpc_door(grpc));
    printf("ready grpc=%s\n", spw_door_grpc_address(grpc));
    fflush(stdout);
    while (getchar() != EOF)
        ;
    fake_service_stop(&fake);
    spw_door_grpc_stop(grpc, SPW_SECOND);
    spw_chat_template_destroy(chat_template);
    fake_service_done(&fake);
    return 0;
}
