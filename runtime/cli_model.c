/* cli_model.c - spillway model inspect | verify | synth. */
#include "runtime/cli.h"
#include "runtime/model/inspect.h"
#include "runtime/model/synth.h"

#include <stdlib.h>
#include <string.h>

static int synth(const struct spw_command *command, int argc, char **argv)
{
    struct spw_error error = {{0}};
    const char *like = NULL, *out = NULL, *dtype = "bf16", *seed = "1";
    for (int i = 0; i < argc && !error.text[0]; i++) {
        if (spw_cli_option(argc, argv, &i, "like", &like, &error) ||
            spw_cli_option(argc, argv, &i, "out", &out, &error) ||
            spw_cli_option(argc, argv, &i, "dtype", &dtype, &error) ||
            spw_cli_option(argc, argv, &i, "seed", &seed, &error))
            continue;
        spw_fail(&error, SPW_INVALID, "unexpected argument '%.100s'; see --help", argv[i]);
    }
    enum spw_dtype type = strcmp(dtype, "f32") == 0   ? SPW_DTYPE_F32
                          : strcmp(dtype, "f16") == 0 ? SPW_DTYPE_F16
                                                      : SPW_DTYPE_BF16;
    if (type == SPW_DTYPE_BF16 && strcmp(dtype, "bf16") != 0)
        spw_fail(&error, SPW_INVALID, "dtype '%.20s' is none of f32, f16, bf16", dtype);
    if (!like || !out)
        spw_fail(&error, SPW_INVALID, "synth needs --like SHAPE and --out DIR");
    if (error.text[0])
        return spw_cli_fail(command, SPW_INVALID, &error);
    enum spw_status status =
        spw_model_synth(like, out, type, strtoull(seed, NULL, 10), stderr, &error);
    return status ? spw_cli_fail(command, status, &error) : SPW_EXIT_OK;
}

static int run(const struct spw_command *command, int argc, char **argv)
{
    struct spw_error error = {{0}};
    const char *verb = argc > 0 ? argv[0] : "", *dir = NULL;
    bool json = false;
    if (strcmp(verb, "synth") == 0)
        return synth(command, argc - 1, argv + 1);
    bool inspect = strcmp(verb, "inspect") == 0;
    if (!inspect && strcmp(verb, "verify") != 0) {
        spw_fail(&error, SPW_INVALID, "inspect, verify or synth must follow; see --help");
        return spw_cli_fail(command, SPW_INVALID, &error);
    }
    for (int i = 1; i < argc; i++) {
        if (inspect && strcmp(argv[i], "--json") == 0)
            json = true;
        else if (!dir && argv[i][0] != '-')
            dir = argv[i];
        else
            spw_fail(&error, SPW_INVALID, "unexpected argument '%.100s'; see --help", argv[i]);
    }
    if (!dir)
        spw_fail(&error, SPW_INVALID, "model %s needs a folder", verb);
    if (error.text[0])
        return spw_cli_fail(command, SPW_INVALID, &error);
    enum spw_status status = inspect ? spw_model_inspect(dir, stdout, json, &error)
                                     : spw_model_verify(dir, stdout, &error);
    return status ? spw_cli_fail(command, status, &error) : SPW_EXIT_OK;
}

const struct spw_command spw_cli_model = {
    .name = "model",
    .brief = "look at a model folder, verify it, make one with random weights",
    .usage = "inspect DIR [--json] | verify DIR | synth --like SHAPE --out DIR [--dtype bf16] "
             "[--seed 1]",
    .text = "inspect  settings, sizes, layouts that fit, digest of settings and shapes\n"
            "verify   read every byte; print the model digest\n"
            "synth    a folder with random weights of a known shape, for benchmarks\n\n"
            "examples:\n"
            "  spillway model inspect ./llama\n"
            "  spillway model synth --like llama-3.2-1b --out ./synth-1b\n",
    .words = "inspect verify synth --json --like --out --dtype --seed llama-3.2-1b llama-3.2-3b "
             "llama-3.1-8b tiny",
    .run = run,
};
