/* openai_int.h - what the parts of the OpenAI client share.
 *
 * Room:      proto/, private
 */
#ifndef SPW_OPENAI_INT_H
#define SPW_OPENAI_INT_H

#include "proto/openai_client.h"
#include "proto/sse.h"

#include <curl/curl.h>

#define SPW_OPENAI_WORDS_MAX 400u

struct spw_openai_call {
    struct spw_openai *client;
    struct spw_openai_call *before, *next; /* running, or (next) free */
    CURL *easy;
    struct curl_slist *headers;
    const struct spw_openai_events *events;
    void *context;

    struct spw_buffer body;   /* what is sent */
    struct spw_buffer answer; /* what is not streamed */
    struct spw_sse sse;
    int http_status;
    uint32_t retry_after;
    bool is_get, is_stream, head_said, done_seen, finish_seen, cancelled;
    enum spw_openai_outcome outcome; /* OK until something is wrong */
    char words[SPW_OPENAI_WORDS_MAX];
    char curl_words[CURL_ERROR_SIZE];
};

struct spw_openai {
    char *url, *unix_path, *ca_path, *cert_path, *key_path, *authorization;
    uint64_t connect_timeout_ns;
    size_t event_bytes_max, answer_bytes_max;
    uint32_t calls_max;

    CURLM *multi;
    int epoll_fd, timer_fd, wake_fd;
    uint64_t curl_due_ns; /* when libcurl wants to be called; UINT64_MAX: not */
    uint64_t timer_ns;    /* what timer_fd is set to; UINT64_MAX: nothing */
    uint64_t waited_ns;
    struct spw_openai_call *running, *spare;
    uint32_t running_count;
    uint32_t ending; /* 1 while `end` of one of them is called: its place is free */
    bool in_turn, failed;
};

/* Callbacks of libcurl (openai_answer.c): the context is the call. */
size_t spw_openai_on_header(char *data, size_t size, size_t count, void *call);
size_t spw_openai_on_body(char *data, size_t size, size_t count, void *call);
/* How the call has ended, from what libcurl says; calls `end`. */
void spw_openai_finish(struct spw_openai_call *call, CURLcode code);

#endif
