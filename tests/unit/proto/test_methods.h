/* test_methods.h - a server with a few methods, in a thread of its own.
 *
 * /t.T/Echo   unary: the message back; metadata x-note comes back as header x-echo
 * /t.T/Count  unary in, stream out: "<count> <bytes>" asks for so many messages of so many bytes,
 *             message i filled with (uint8_t)i
 * /t.T/Hang   unary: no answer, ever
 * /t.T/Fail   unary: INVALID_ARGUMENT with the message as words
 * /t.T/Chat   stream of messages: each comes back
 */
#ifndef TEST_METHODS_H
#define TEST_METHODS_H

#include "proto/grpc_server.h"

#include <pthread.h>
#include <stdatomic.h>

struct test_server {
    struct spw_grpc_server *server;
    pthread_t thread;
    char url[128];                          /* http://address */
    atomic_uint called, cancelled, counted; /* counted: messages that Count could hand over */
};

/* config->metadata and context are set here; tcp "127.0.0.1:0" when neither address is given. */
void test_server_start(struct test_server *test, struct spw_grpc_server_config config);
void test_server_stop(struct test_server *test, uint64_t drain_ns);
void test_server_add(struct test_server *test, struct spw_grpc_server *server);

/* Wait until *value is at least `least`; false after two seconds. */
bool test_wait(atomic_uint *value, unsigned least);

#endif
