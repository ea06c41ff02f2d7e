/* cli_run.c - spillway run: start, answer one prompt, stop. */
#include "runtime/base/log.h"
#include "runtime/cli.h"
#include "runtime/deploy.h"
#include "runtime/stream.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct asking {
    const char *prompt;
    bool plain; /* as text, even where there is a chat template */
    bool greedy;
    uint32_t tokens_max;
    uint64_t seed;
    bool seed_given;
    pthread_t thread;
    bool started;
    struct spw_deploy_ready ready;
    atomic_int stop;
    atomic_bool over; /* nothing is served any more: what has not ended by now never will */
    int code;
};

static void print_piece(const struct spw_stream *stream)
{
    if (stream->text.bytes)
        fwrite(stream->text.data, 1, stream->text.bytes, stdout);
    fflush(stdout);
}

static enum spw_status answer(struct asking *asking, struct spw_error *error)
{
    struct spw_door *door = asking->ready.door;
    struct spw_ask ask = {.output_tokens_max = asking->tokens_max, .priority = 1};
    json_t *variables = NULL;
    struct spw_stream *stream = NULL;
    if (asking->ready.service->chat_template && !asking->plain) {
        variables = json_pack("{s:[{s:s, s:s}], s:b}", "messages", "role", "user", "content",
                              asking->prompt, "add_generation_prompt", 1);
        if (!variables)
            return spw_fail(error, SPW_INVALID, "the prompt is not UTF-8");
        ask.messages = variables;
    } else {
        ask.text = asking->prompt;
        ask.text_bytes = strlen(asking->prompt);
        ask.add_special = true;
    }
    ask.sampling_given[SPW_ASK_TEMPERATURE] = asking->greedy;
    ask.sampling_given[SPW_ASK_SEED] = asking->seed_given;
    ask.sampling.seed = asking->seed;
    enum spw_status status = spw_stream_open(door, &ask, NULL, &stream, error);
    json_decref(variables);
    bool over = false;
    while (!status && !over && stream->end == SPW_REQUEST_END_NONE) {
        over = atomic_load(&asking->over); /* before the last look at the notices */
        struct pollfd wait = {.fd = door->wake_fd, .events = POLLIN};
        poll(&wait, 1, 200);
        spw_door_clear_wake(door);
        while (spw_door_next(door))
            if (spw_stream_advance(door, stream))
                print_piece(stream);
    }
    if (!status) {
        printf("\n");
        if (stream->end == SPW_REQUEST_END_ERROR)
            status = spw_fail(error, stream->request->status, "%s", stream->request->error.text);
        else if (stream->end == SPW_REQUEST_END_NONE)
            status = spw_fail(error, SPW_PEER_LOST, "the deployment ended before the answer");
    }
    spw_stream_close(door, stream);
    return status;
}

static void *ask_thread(void *context)
{
    struct asking *asking = context;
    struct spw_error error = {{0}};
    enum spw_status status = answer(asking, &error);
    if (status)
        asking->code = spw_cli_fail(&spw_cli_run, status, &error);
    atomic_store(&asking->stop, SPW_STOP_NOW);
    return NULL;
}

static void on_ready(void *context, const struct spw_deploy_ready *ready)
{
    struct asking *asking = context;
    asking->ready = *ready;
    asking->started = pthread_create(&asking->thread, NULL, ask_thread, asking) == 0;
    if (!asking->started)
        atomic_store(&asking->stop, SPW_STOP_NOW);
}

static void on_end(void *context)
{
    struct asking *asking = context;
    atomic_store(&asking->over, true);
    if (asking->started)
        pthread_join(asking->thread, NULL);
}

/* Take the command's own flags out of argv; the rest is for the config. */
static int take_options(struct asking *asking, int argc, char **argv, struct spw_error *error)
{
    int kept = 0;
    for (int i = 0; i < argc; i++) {
        const char *value = NULL;
        uint64_t number = 0;
        if (strcmp(argv[i], "--plain") == 0)
            asking->plain = true;
        else if (strcmp(argv[i], "--greedy") == 0)
            asking->greedy = true;
        else if (spw_cli_option(argc, argv, &i, "max-tokens", &value, error)) {
            if (spw_cli_number("max-tokens", value, UINT32_MAX, &number, error))
                asking->tokens_max = (uint32_t)number;
        } else if (spw_cli_option(argc, argv, &i, "seed", &value, error))
            asking->seed_given = spw_cli_number("seed", value, UINT64_MAX, &asking->seed, error);
        else
            argv[kept++] = argv[i];
    }
    return kept;
}

static int run(const struct spw_command *command, int argc, char **argv)
{
    struct asking asking = {0};
    struct spw_config config;
    struct spw_error error = {{0}};
    size_t count = 1;
    argc = take_options(&asking, argc, argv, &error);
    enum spw_status status = error.text[0] ? SPW_INVALID : SPW_OK;
    if (!status)
        status = spw_config_load(&config, argc, argv, &asking.prompt, &count, &error);
    if (!status && count == 0)
        status = spw_fail(&error, SPW_INVALID, "a prompt is needed; see --help");
    if (status)
        return spw_cli_fail(command, status, &error);
    enum spw_log_level level = SPW_LOG_WARN;
    if (strcmp(config.log_level, "info") != 0)
        spw_log_level_parse(config.log_level, &level);
    spw_log_level_set(level);
    config.http[0] = config.grpc[0] = config.unix_path[0] = '\0';
    config.gateways = 0;
    struct spw_deploy_options options = {
        .config = &config,
        .stop = &asking.stop,
        .single = true,
        .own_door = true,
        .quiet = true,
        .on_ready = on_ready,
        .on_end = on_end,
        .context = &asking,
    };
    int code = spw_deploy_serve(&options);
    return code ? code : asking.code;
}

const struct spw_command spw_cli_run = {
    .name = "run",
    .brief = "start in one process, answer one prompt, stop",
    .usage = "--model DIR PROMPT [--max-tokens N] [--greedy] [--seed N] [--plain] [FLAGS]",
    .text = "The prompt goes through the model's chat template; --plain takes it as text to go on "
            "with.\n\n"
            "examples:\n"
            "  spillway run --model ./launch/demo-model --greedy 'What is Spillway?'\n"
            "  spillway run --model ./llama --plain --max-tokens 50 'Once upon a time'\n",
    .config_flags = true,
    .words = "--max-tokens --greedy --seed --plain",
    .run = run,
};
