/* cli_serve.c - spillway serve: one rank. */
#include "runtime/base/log.h"
#include "runtime/cli.h"
#include "runtime/deploy.h"
#include "transport/bootstrap.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static enum spw_status set_log(const struct spw_config *config, struct spw_error *error)
{
    enum spw_log_level level = SPW_LOG_INFO;
    spw_log_level_parse(config->log_level, &level);
    spw_log_level_set(level);
    if (!config->log_dir[0])
        return SPW_OK;
    char path[SPW_CONFIG_TEXT_MAX + 160], host[64] = "host";
    gethostname(host, sizeof(host) - 1);
    mkdir(config->log_dir, 0750);
    snprintf(path, sizeof(path), "%s/%s.%d.log", config->log_dir, host, (int)getpid());
    if (!spw_log_file(path))
        return spw_fail(error, SPW_CONFIG, "log-dir: %s cannot be written", path);
    return SPW_OK;
}

static int run(const struct spw_command *command, int argc, char **argv)
{
    struct spw_config config;
    struct spw_error error = {{0}};
    enum spw_status status = spw_config_load(&config, argc, argv, NULL, NULL, &error);
    if (!status)
        status = set_log(&config, &error);
    /* one of many tells the others, who could not know why it never came; a wrong command line is
     * the same for all of them */
    if (status && (status == SPW_INVALID || config.dry_run || !spw_bootstrap_present()))
        return spw_cli_fail(command, status, &error);
    if (config.dry_run) {
        status = spw_deploy_dry_run(&config, stdout, &error);
        return status ? spw_cli_fail(command, status, &error) : SPW_EXIT_OK;
    }
    spw_cli_catch_signals();
    const char *parent = getenv("SPILLWAY_RANK_COMMAND");
    if (parent) /* `up` is gone and its mpirun with it: drain and end */
        prctl(PR_SET_PDEATHSIG, SIGTERM);
    struct spw_deploy_options options = {
        .config = &config,
        .stop = &spw_cli_stop,
        .config_status = status,
        .config_error = &error,
    };
    int code = spw_deploy_serve(&options);
    /* `up` reads this: mpirun's own exit code does not tell what its ranks ended with */
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (!rank)
        rank = getenv("PMIX_RANK");
    if (parent && (!rank || strcmp(rank, "0") == 0)) {
        printf("ended code=%d\n", code);
        fflush(stdout);
    }
    return code;
}

const struct spw_command spw_cli_serve = {
    .name = "serve",
    .brief = "serve as one rank: what up, mpirun and sbatch run; alone, all ranks in one process",
    .usage = "--model DIR [FLAGS]",
    .text = "Without mpirun this process is a complete deployment. Under mpirun or srun it is the "
            "rank\n"
            "that it was started as. SIGINT, SIGTERM or SIGUSR1 drain and end it; a second one "
            "ends at\n"
            "once.\n\n"
            "examples:\n"
            "  spillway serve --model ./llama --http 127.0.0.1:8000\n"
            "  mpirun -np 6 spillway serve --model ./llama --tensor 2 --pipeline 2\n",
    .config_flags = true,
    .words = "",
    .run = run,
};
