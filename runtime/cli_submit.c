/* cli_submit.c - spillway submit: a prompt to a running deployment, the answer as it grows. */
#include "proto/client.h"
#include "runtime/cli.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ADDRESS_DEFAULT  "127.0.0.1:8001"
#define PROMPT_BYTES_MAX (4u << 20)

struct submission {
    const char *address, *prompt, *ca, *cert, *key, *stop, *tenant;
    uint32_t tokens_max;
    float temperature;
    uint64_t seed;
    bool plain, temperature_given, seed_given, json, ids, ignore_eos;
};

static bool parse_temperature(const char *text, float *out_value, struct spw_error *error)
{
    char *end = NULL;
    float value = strtof(text, &end);
    if (end != text && *end == '\0' && value >= 0) {
        *out_value = value;
        return true;
    }
    spw_fail(error, SPW_INVALID, "flag --temperature is '%.50s': a number of at least 0 is right",
             text);
    return false;
}

static void take_options(struct submission *self, int argc, char **argv, struct spw_error *error)
{
    for (int i = 0; i < argc && !error->text[0]; i++) {
        const char *value = NULL;
        uint64_t number = 0;
        if (strcmp(argv[i], "--plain") == 0)
            self->plain = true;
        else if (strcmp(argv[i], "--ids") == 0)
            self->ids = true;
        else if (strcmp(argv[i], "--json") == 0)
            self->json = true;
        else if (strcmp(argv[i], "--ignore-eos") == 0)
            self->ignore_eos = true;
        else if (spw_cli_option(argc, argv, &i, "to", &self->address, error) ||
                 spw_cli_option(argc, argv, &i, "tls-ca", &self->ca, error) ||
                 spw_cli_option(argc, argv, &i, "tls-cert", &self->cert, error) ||
                 spw_cli_option(argc, argv, &i, "tls-key", &self->key, error) ||
                 spw_cli_option(argc, argv, &i, "tenant", &self->tenant, error) ||
                 spw_cli_option(argc, argv, &i, "stop", &self->stop, error))
            continue;
        else if (spw_cli_option(argc, argv, &i, "max-tokens", &value, error)) {
            if (spw_cli_number("max-tokens", value, UINT32_MAX, &number, error))
                self->tokens_max = (uint32_t)number;
        } else if (spw_cli_option(argc, argv, &i, "temperature", &value, error)) {
            self->temperature_given = parse_temperature(value, &self->temperature, error);
        } else if (spw_cli_option(argc, argv, &i, "seed", &value, error)) {
            self->seed_given = spw_cli_number("seed", value, UINT64_MAX, &self->seed, error);
        } else if (!self->prompt && (strncmp(argv[i], "--", 2) != 0))
            self->prompt = argv[i];
        else
            spw_fail(error, SPW_INVALID, "unexpected argument '%.100s'; see --help", argv[i]);
    }
}

/* "-" reads the prompt from standard input. */
static char *read_prompt(const char *prompt, struct spw_error *error)
{
    if (strcmp(prompt, "-") != 0)
        return strdup(prompt);
    char *text = malloc(PROMPT_BYTES_MAX + 1);
    size_t bytes = text ? fread(text, 1, PROMPT_BYTES_MAX + 1, stdin) : 0;
    if (!text || bytes > PROMPT_BYTES_MAX) {
        spw_fail(error, SPW_TOO_LARGE, "the prompt on standard input has more than %u bytes",
                 PROMPT_BYTES_MAX);
        free(text);
        return NULL;
    }
    text[bytes] = '\0';
    return text;
}

static const char *finish_name(Spillway__V1__FinishReason reason)
{
    switch (reason) {
    case SPILLWAY__V1__FINISH_REASON__FINISH_REASON_STOP:
        return "stop";
    case SPILLWAY__V1__FINISH_REASON__FINISH_REASON_LENGTH:
        return "length";
    case SPILLWAY__V1__FINISH_REASON__FINISH_REASON_CANCELLED:
        return "cancelled";
    default:
        return "unknown";
    }
}

/* One object a line for each message; log-probabilities with all their digits. */
static void print_json(const Spillway__V1__GenerateResponse *response)
{
    json_t *tokens = json_array();
    for (size_t i = 0; i < response->n_tokens; i++)
        json_array_append_new(tokens, json_pack("{s:i, s:f}", "id", (int)response->tokens[i]->id,
                                                "logprob", (double)response->tokens[i]->logprob));
    json_t *root = json_pack("{s:s%, s:o}", "text",
                             response->text.len ? (const char *)response->text.data : "",
                             response->text.len, "tokens", tokens);
    if (root && response->request_id[0])
        json_object_set_new(root, "request_id", json_string(response->request_id));
    if (root && response->finish)
        json_object_set_new(root, "finish", json_string(finish_name(response->finish->reason)));
    if (root)
        json_dumpf(root, stdout, JSON_COMPACT);
    printf("\n");
    json_decref(root);
}

static bool on_response(void *context, const Spillway__V1__GenerateResponse *response)
{
    const struct submission *self = context;
    if (self->json)
        print_json(response);
    else if (self->ids)
        for (size_t i = 0; i < response->n_tokens; i++)
            printf("%d\n", (int)response->tokens[i]->id);
    else if (response->text.len) /* the last message has none, and then no address either */
        fwrite(response->text.data, 1, response->text.len, stdout);
    fflush(stdout);
    return atomic_load(&spw_cli_stop) == 0;
}

static enum spw_status submit(struct submission *self, char *prompt, struct spw_error *error)
{
    struct spw_client_options options = {
        .ca_path = self->ca, .cert_path = self->cert, .key_path = self->key};
    struct spw_client *client = NULL;
    Spillway__V1__GenerateRequest request = SPILLWAY__V1__GENERATE_REQUEST__INIT;
    Spillway__V1__Chat chat = SPILLWAY__V1__CHAT__INIT;
    Spillway__V1__ChatMessage message = SPILLWAY__V1__CHAT_MESSAGE__INIT;
    Spillway__V1__ChatMessage *messages[] = {&message};
    Spillway__V1__Sampling sampling = SPILLWAY__V1__SAMPLING__INIT;
    char *stops[] = {(char *)self->stop};
    char user[] = "user";
    ProtobufCBinaryData content = {.len = strlen(prompt), .data = (uint8_t *)prompt};

    if (self->plain) {
        request.input_case = SPILLWAY__V1__GENERATE_REQUEST__INPUT_TEXT;
        request.text = content;
    } else {
        message.role = user;
        message.content = content;
        chat.messages = messages;
        chat.n_messages = 1;
        request.input_case = SPILLWAY__V1__GENERATE_REQUEST__INPUT_CHAT;
        request.chat = &chat;
    }
    request.max_tokens = self->tokens_max;
    if (self->temperature_given) {
        sampling.has_temperature_case = SPILLWAY__V1__SAMPLING__HAS_TEMPERATURE_TEMPERATURE;
        sampling.temperature = self->temperature;
    }
    if (self->seed_given) {
        sampling.has_seed_case = SPILLWAY__V1__SAMPLING__HAS_SEED_SEED;
        sampling.seed = self->seed;
    }
    request.sampling = &sampling;
    request.ignore_eos = self->ignore_eos;
    request.logprobs = self->json;
    if (self->tenant)
        request.tenant = (char *)self->tenant;
    if (self->stop) {
        request.stop = stops;
        request.n_stop = 1;
    }
    enum spw_status status = spw_client_open(self->address, &options, &client, error);
    if (!status)
        status = spw_client_generate(client, &request, 0, on_response, self, error);
    if (!self->ids && !self->json)
        printf("\n");
    spw_client_close(client);
    return status;
}

static int run(const struct spw_command *command, int argc, char **argv)
{
    struct spw_error error = {{0}};
    const char *address = getenv("SPILLWAY_ADDRESS");
    struct submission self = {.address = address ? address : ADDRESS_DEFAULT};
    take_options(&self, argc, argv, &error);
    if (!error.text[0] && !self.prompt)
        spw_fail(&error, SPW_INVALID, "a prompt is needed; see --help");
    if (error.text[0])
        return spw_cli_fail(command, SPW_INVALID, &error);
    char *prompt = read_prompt(self.prompt, &error);
    if (!prompt)
        return spw_cli_fail(command, SPW_INVALID, &error);
    spw_cli_catch_signals();
    enum spw_status status = submit(&self, prompt, &error);
    free(prompt);
    if (status == SPW_CANCELLED && atomic_load(&spw_cli_stop)) /* by us: nothing to explain */
        return SPW_EXIT_FAILURE;
    return status ? spw_cli_fail(command, status, &error) : SPW_EXIT_OK;
}

const struct spw_command spw_cli_submit = {
    .name = "submit",
    .brief = "send a prompt to a running deployment, stream the answer",
    .usage = "PROMPT [--to ADDRESS] [--max-tokens N] [--temperature X] [--seed N] [--stop TEXT] "
             "[--tenant NAME] [--plain] "
             "[--ignore-eos] [--ids | --json] [--tls-ca FILE] [--tls-cert FILE --tls-key FILE]",
    .text = "ADDRESS is the gRPC door: host:port, https://host:port or unix:/path; the default is\n"
            "SPILLWAY_ADDRESS, then " ADDRESS_DEFAULT
            ". PROMPT - reads standard input. --plain goes on with\n"
            "the text instead of asking through the chat template; --ids prints token ids, --json "
            "one object a\n"
            "message with tokens and log-probabilities.\n\n"
            "examples:\n"
            "  spillway submit 'What is Spillway?'\n"
            "  spillway submit --to unix:/run/spillway.sock.grpc --temperature 0 - < prompt.txt\n",
    .words =
        "--to --max-tokens --temperature --seed --stop --tenant --plain --ids --json --ignore-eos "
        "--tls-ca --tls-cert --tls-key",
    .run = run,
};
