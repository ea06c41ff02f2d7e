/* http_fake_server.c - the HTTP door over the fake loop as a program, for clients in other
 * languages: prints its URL, serves until standard input ends.
 */
#include "tests/unit/runtime/http_fake.h"

#include <stdio.h>

int main(void)
{
    struct http_fake *fake = http_fake_create();
    if (!fake)
        return 1;
    http_fake_start(
        fake, &(struct spw_door_http_config){.tcp = "127.0.0.1:0", .connections_max = 300}, NULL);
    atomic_store(&fake->turn_us, 500);
    printf("http://%s\n", spw_door_http_address(fake->http));
    fflush(stdout);
    while (getchar() != EOF)
        continue;
    http_fake_stop(fake, 0);
    http_fake_destroy(fake);
    return 0;
}
