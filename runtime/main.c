/* main.c - one executable, one table of subcommands. */
#include "runtime/cli.h"
#include "runtime/config.h"
#include "runtime/deploy.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef SPW_VERSION
#define SPW_VERSION "unknown"
#endif

static const struct spw_command *const commands[] = {
    &spw_cli_up,   &spw_cli_serve, &spw_cli_run,   &spw_cli_submit, &spw_cli_status,
    &spw_cli_down, &spw_cli_model, &spw_cli_bench, &spw_cli_plan,
};

atomic_int spw_cli_stop;

static void on_signal(int signal_number)
{
    (void)signal_number;
    int before = atomic_load(&spw_cli_stop);
    atomic_store(&spw_cli_stop, before == SPW_STOP_NONE ? SPW_STOP_DRAIN : SPW_STOP_NOW);
}

void spw_cli_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

int spw_cli_fail(const struct spw_command *command, enum spw_status status,
                 const struct spw_error *error)
{
    fprintf(stderr, "spillway %s: %s\n", command->name,
            error && error->text[0] ? error->text : spw_status_text(status));
    if (status == SPW_INVALID)
        return SPW_EXIT_USAGE;
    return spw_deploy_exit_code(status);
}

bool spw_cli_colour(FILE *out)
{
    const char *terminal = getenv("TERM");
    return isatty(fileno(out)) && !getenv("NO_COLOR") && terminal && strcmp(terminal, "dumb") != 0;
}

bool spw_cli_option(int argc, char **argv, int *index, const char *name, const char **out_value,
                    struct spw_error *error)
{
    const char *argument = argv[*index];
    size_t bytes = strlen(name);
    if (strncmp(argument, "--", 2) != 0 || strncmp(argument + 2, name, bytes) != 0)
        return false;
    if (argument[2 + bytes] == '=') {
        *out_value = argument + 3 + bytes;
        return true;
    }
    if (argument[2 + bytes] != '\0')
        return false;
    if (*index + 1 >= argc) {
        spw_fail(error, SPW_INVALID, "flag --%s needs a value; see --help", name);
        *out_value = "";
        return true;
    }
    *out_value = argv[++*index];
    return true;
}

bool spw_cli_number(const char *name, const char *text, uint64_t max, uint64_t *out_value,
                    struct spw_error *error)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (isdigit((unsigned char)text[0]) && *end == '\0' && errno == 0 && value <= max) {
        *out_value = value;
        return true;
    }
    spw_fail(error, SPW_INVALID, "flag --%s is '%.50s': a whole number from 0 to %llu is right",
             name, text, (unsigned long long)max);
    return false;
}

static void print_usage(FILE *out)
{
    fprintf(out,
            "spillway %s: serves large language models on your own cluster\n\n"
            "usage: spillway COMMAND [FLAGS]\n\n",
            SPW_VERSION);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(commands); i++)
        fprintf(out, "  %-8s %s\n", commands[i]->name, commands[i]->brief);
    fprintf(out, "\n`spillway COMMAND --help` explains flags and gives examples; `spillway "
                 "completion` prints\n"
                 "completion for bash: source <(spillway completion)\n");
}

static void print_help(const struct spw_command *command)
{
    printf("usage: spillway %s %s\n\n%s\n", command->name, command->usage, command->text);
    if (command->config_flags)
        spw_config_help(stdout);
}

/* The second word of "bench load". */
static const char *part_name(const struct spw_command *part)
{
    const char *space = strrchr(part->name, ' ');
    return space ? space + 1 : part->name;
}

static void print_words(const struct spw_command *command)
{
    printf("words=\"%s --help", command->words);
    if (command->config_flags)
        spw_config_words(stdout);
    printf("\" ;;\n");
}

static void print_completion(void)
{
    printf("_spillway() {\n    local word=\"${COMP_WORDS[COMP_CWORD]}\" words=\"\"\n"
           "    if [ \"$COMP_CWORD\" = 1 ]; then\n        words=\"");
    for (size_t i = 0; i < SPW_ARRAY_COUNT(commands); i++)
        printf("%s%s", i ? " " : "", commands[i]->name);
    printf(" completion help\"\n    else\n        case \"${COMP_WORDS[1]} "
           "${COMP_WORDS[2]}\" in\n");
    for (size_t i = 0; i < SPW_ARRAY_COUNT(commands); i++) {
        for (size_t p = 0; commands[i]->parts && commands[i]->parts[p]; p++) {
            printf("        \"%s\") ", commands[i]->parts[p]->name);
            print_words(commands[i]->parts[p]);
        }
        printf("        \"%s \"*) ", commands[i]->name);
        print_words(commands[i]);
    }
    printf("        esac\n    fi\n"
           "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\") $(compgen -f -- \"$word\"))\n}\n"
           "complete -o filenames -F _spillway spillway\n");
}

static int run_command(const struct spw_command *command, int argc, char **argv)
{
    for (size_t p = 0; argc > 0 && command->parts && command->parts[p]; p++)
        if (strcmp(part_name(command->parts[p]), argv[0]) == 0)
            return run_command(command->parts[p], argc - 1, argv + 1);
    for (int a = 0; a < argc; a++)
        if (strcmp(argv[a], "--help") == 0 || strcmp(argv[a], "-h") == 0) {
            print_help(command);
            return SPW_EXIT_OK;
        }
    return command->run(command, argc, argv);
}

int main(int argc, char **argv)
{
    /* a client or mpirun that goes away is an error of a write, not a signal */
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_usage(stderr);
        return SPW_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        print_usage(stdout);
        return SPW_EXIT_OK;
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0) {
        printf("spillway %s\n", SPW_VERSION);
        return SPW_EXIT_OK;
    }
    if (strcmp(name, "completion") == 0) {
        print_completion();
        return SPW_EXIT_OK;
    }
    for (size_t i = 0; i < SPW_ARRAY_COUNT(commands); i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return run_command(commands[i], argc - 2, argv + 2);
    }
    fprintf(stderr, "spillway: unknown command '%s'\n\n", name);
    print_usage(stderr);
    return SPW_EXIT_USAGE;
}
