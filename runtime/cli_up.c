/* cli_up.c - spillway up and down: start all ranks, pass signals on, judge how they ended. */
#include "runtime/base/clock.h"
#include "runtime/cli.h"
#include "runtime/deploy.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGUMENTS_MAX      256
#define LINE_BYTES_MAX     4096
#define END_WAIT_SECONDS   10 /* for mpirun after the coordinator ended */
#define DRAIN_WAIT_SECONDS 40 /* for the coordinator after it was told to drain */
#define DOWN_WAIT_SECONDS  45

struct starter {
    pid_t child;
    int output; /* its standard output */
    bool ready, ended;
    int code;       /* that the coordinator ended with */
    int ready_pipe; /* of --daemon: tells the parent, -1 else */
    char line[LINE_BYTES_MAX];
    size_t line_bytes;
};

static bool in_path(const char *program)
{
    const char *path = getenv("PATH");
    char full[4096];
    while (path && *path) {
        size_t bytes = strcspn(path, ":");
        snprintf(full, sizeof(full), "%.*s/%s", (int)bytes, path, program);
        if (access(full, X_OK) == 0)
            return true;
        path += bytes + (path[bytes] == ':');
    }
    return false;
}

/* The command that starts `ranks` ranks: srun inside an allocation, else mpirun. Returns how many
 * words. */
static int starter_words(uint32_t ranks, char *count, size_t count_bytes, const char **words)
{
    int n = 0;
    snprintf(count, count_bytes, "%u", ranks);
    if (getenv("SLURM_JOB_ID") && in_path("srun")) {
        /* the survivors of a lost rank or node go on */
        static const char *const srun[] = {"srun",      "--mpi=pmix",   "-K0",
                                           "--no-kill", "--unbuffered", "-n"};
        for (size_t i = 0; i < SPW_ARRAY_COUNT(srun); i++)
            words[n++] = srun[i];
        words[n++] = count;
        return n;
    }
    static const char *const mpirun[] = {
        "mpirun", "--enable-recovery", "--oversubscribe", "--bind-to", "none",
        /* a drain takes up to 30 s: mpirun must not kill before */
        "--mca", "odls_base_sigkill_timeout", "40", "--mca", "orte_abort_on_non_zero_status", "0"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(mpirun); i++)
        words[n++] = mpirun[i];
    if (geteuid() == 0)
        words[n++] = "--allow-run-as-root";
    words[n++] = "-np";
    words[n++] = count;
    return n;
}

static enum spw_status start(struct starter *starter, const struct spw_config *config, int argc,
                             char **argv, struct spw_error *error)
{
    const char *words[ARGUMENTS_MAX + 64];
    char count[16], self[4096];
    int output[2];
    ssize_t bytes = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (bytes < 0 || argc > ARGUMENTS_MAX)
        return spw_fail(error, SPW_INVALID, "too many arguments: put them into a site file");
    self[bytes] = '\0';
    int n = starter_words(spw_layout_ranks(config), count, sizeof(count), words);
    if (!in_path(words[0]))
        return spw_fail(
            error, SPW_CONFIG,
            "%s is not on PATH: install Open MPI (Debian: openmpi-bin), or run `spillway "
            "serve` as one process",
            words[0]);
    words[n++] = self;
    words[n++] = "serve";
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--daemon") != 0)
            words[n++] = argv[i];
    words[n] = NULL;
    if (pipe2(output, O_CLOEXEC))
        return spw_fail(error, SPW_IO, "no pipe: %s", strerror(errno));
    starter->child = fork();
    if (starter->child < 0)
        return spw_fail(error, SPW_IO, "no process: %s", strerror(errno));
    if (starter->child == 0) {
        /* a group of its own: Ctrl-C reaches the ranks as a drain, through us */
        setpgid(0, 0);
        /* were we killed without a chance to drain, mpirun goes with us, and its ranks with it (see
         * cli_serve.c); on SIGTERM it would wait for ever once its ranks have ended */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(output[1], STDOUT_FILENO);
        close(output[0]);
        close(output[1]);
        setenv("SPILLWAY_RANK_COMMAND", "up", 1);
        setenv("SLURM_PMIX_DIRECT_CONN", "false", 1);
        execvp(words[0], (char *const *)words);
        _exit(127);
    }
    close(output[1]);
    starter->output = output[0];
    return SPW_OK;
}

static void take_line(struct starter *starter, const char *line)
{
    if (strncmp(line, "ended code=", 11) == 0) {
        starter->ended = true;
        starter->code = (int)strtol(line + 11, NULL, 10);
        return;
    }
    printf("%s\n", line);
    fflush(stdout);
    if (strncmp(line, "ready", 5) == 0 && !starter->ready) {
        starter->ready = true;
        if (starter->ready_pipe >= 0) {
            dprintf(starter->ready_pipe, "%s\n", line);
            close(starter->ready_pipe);
            starter->ready_pipe = -1;
        }
    }
}

/* False at the end of the output. */
static bool take_output(struct starter *starter)
{
    char bytes[1024];
    ssize_t got = read(starter->output, bytes, sizeof(bytes));
    if (got < 0)
        return errno == EINTR || errno == EAGAIN;
    for (ssize_t i = 0; i < got; i++) {
        if (bytes[i] != '\n' && starter->line_bytes + 1 < sizeof(starter->line)) {
            starter->line[starter->line_bytes++] = bytes[i];
            continue;
        }
        starter->line[starter->line_bytes] = '\0';
        starter->line_bytes = 0;
        take_line(starter, starter->line);
    }
    return got > 0;
}

/* Wait for the child for so long, then end it and everything in its group. */
static void reap(struct starter *starter, int seconds)
{
    int status = 0;
    for (int i = 0; i < seconds * 20; i++) {
        if (waitpid(starter->child, &status, WNOHANG) != 0)
            return;
        usleep(50000);
    }
    kill(-starter->child, SIGKILL);
    waitpid(starter->child, &status, 0);
}

/* Until the coordinator has ended: signals become a drain, then an end. Before the ready line there
 * is nothing to drain, and ranks that do not exist yet would miss a signal: then mpirun is killed,
 * and its ranks end with it (cli_serve.c).
 */
static int watch(struct starter *starter)
{
    int passed = SPW_STOP_NONE;
    bool open = true;
    uint64_t give_up = 0; /* seconds */
    while (open && !starter->ended) {
        struct pollfd wait = {.fd = starter->output, .events = POLLIN};
        int got = poll(&wait, 1, 200);
        if (got > 0)
            open = take_output(starter);
        uint64_t now = spw_clock_monotonic_ns() / SPW_SECOND;
        if (got == 0 && passed < atomic_load(&spw_cli_stop)) {
            /* mpirun forwards SIGUSR1; SIGTERM would make it kill. One at a time: of two at once
             * only one may arrive. */
            kill(starter->child, starter->ready ? SIGUSR1 : SIGKILL);
            give_up = give_up ? give_up : now + DRAIN_WAIT_SECONDS;
            passed++;
        }
        if (give_up && now > give_up) {
            fprintf(stderr, "spillway up: the ranks have not ended in %d s: killed\n",
                    DRAIN_WAIT_SECONDS);
            kill(-starter->child, SIGKILL);
            break;
        }
    }
    close(starter->output);
    reap(starter, END_WAIT_SECONDS);
    if (!starter->ready && passed != SPW_STOP_NONE)
        return SPW_EXIT_OK; /* stopped as asked, before it served */
    return starter->ended ? starter->code : SPW_EXIT_PEER_LOST;
}

/* ---- daemon ---- */

static void state_path(const struct spw_config *config, const char *name, char *out, size_t bytes)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (config->state_dir[0])
        snprintf(out, bytes, "%s/%s", config->state_dir, name);
    else if (runtime && *runtime)
        snprintf(out, bytes, "%s/spillway/%s", runtime, name);
    else
        snprintf(out, bytes, "/tmp/spillway-%u/%s", (unsigned)geteuid(), name);
}

/* In a folder that others made, a pid or the target of a link would be theirs to choose. */
static enum spw_status check_state_dir(const struct spw_config *config, bool make,
                                       struct spw_error *error)
{
    char path[SPW_CONFIG_TEXT_MAX + 64];
    struct stat info;
    state_path(config, "", path, sizeof(path));
    path[strlen(path) - 1] = '\0';
    if (make)
        mkdir(path, 0700);
    bool anybodys = !config->state_dir[0] && strncmp(path, "/tmp/", 5) == 0;
    if (!anybodys || (lstat(path, &info) && errno == ENOENT))
        return SPW_OK;
    if (lstat(path, &info) || !S_ISDIR(info.st_mode) || info.st_uid != geteuid() ||
        (info.st_mode & (S_IWGRP | S_IWOTH)))
        return spw_fail(error, SPW_CONFIG,
                        "state-dir: %s is not a folder of this user alone: remove it, or give "
                        "--state-dir",
                        path);
    return SPW_OK;
}

/* Whoever holds the pid file's lock lives; a file that was left behind says nothing. */
static pid_t read_pid(const struct spw_config *config)
{
    char path[SPW_CONFIG_TEXT_MAX + 64];
    long pid = 0;
    state_path(config, "pid", path, sizeof(path));
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    if (fscanf(file, "%9ld", &pid) != 1 || flock(fileno(file), LOCK_SH | LOCK_NB) == 0)
        pid = 0;
    fclose(file);
    return (pid_t)pid;
}

/* The lock is held until this process ends. */
static enum spw_status write_pid(const struct spw_config *config, struct spw_error *error)
{
    char path[SPW_CONFIG_TEXT_MAX + 64];
    state_path(config, "pid", path, sizeof(path));
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) {
        close(fd);
        return spw_fail(error, SPW_CONFIG, "a deployment runs already: spillway down ends it");
    }
    if (fd < 0 || ftruncate(fd, 0) || dprintf(fd, "%ld\n", (long)getpid()) < 0)
        return spw_fail(error, SPW_CONFIG, "state-dir: %s cannot be written", path);
    return SPW_OK;
}

/* In the child of --daemon: away from the terminal, log and pid in the state folder. */
static enum spw_status detach(const struct spw_config *config, struct spw_error *error)
{
    char path[SPW_CONFIG_TEXT_MAX + 64];
    setsid();
    state_path(config, "log", path, sizeof(path));
    FILE *log = freopen(path, "a", stderr);
    if (!log || !freopen("/dev/null", "r", stdin) || !freopen("/dev/null", "a", stdout))
        return spw_fail(error, SPW_CONFIG, "state-dir: %s cannot be written", path);
    return write_pid(config, error);
}

/* The parent of --daemon: returns when ready. */
static int await_ready(const struct spw_config *config, int fd, pid_t child)
{
    char line[LINE_BYTES_MAX], log[SPW_CONFIG_TEXT_MAX + 64];
    size_t used = 0;
    ssize_t got;
    while (used + 1 < sizeof(line) && (got = read(fd, line + used, sizeof(line) - 1 - used)) != 0) {
        if (got < 0 && errno != EINTR)
            break;
        used += got > 0 ? (size_t)got : 0;
    }
    line[used] = '\0';
    if (used) {
        fputs(line, stdout);
        return SPW_EXIT_OK;
    }
    int status = 0;
    waitpid(child, &status, 0);
    state_path(config, "log", log, sizeof(log));
    fprintf(stderr, "spillway up: the deployment ended before it was ready: %s says why\n", log);
    return WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : SPW_EXIT_FAILURE;
}

static int up(const struct spw_command *command, int argc, char **argv)
{
    struct starter starter = {.ready_pipe = -1};
    struct spw_config config;
    struct spw_error error = {{0}};
    enum spw_status status = spw_config_load(&config, argc, argv, NULL, NULL, &error);
    if (!status)
        status = spw_config_check(&config, &error);
    if (status)
        return spw_cli_fail(command, status, &error);
    if (config.dry_run) {
        status = spw_deploy_dry_run(&config, stdout, &error);
        return status ? spw_cli_fail(command, status, &error) : SPW_EXIT_OK;
    }
    if (config.daemon) {
        int ready[2];
        status = check_state_dir(&config, true, &error);
        if (status)
            return spw_cli_fail(command, status, &error);
        pid_t old = read_pid(&config);
        if (old > 0) {
            spw_fail(&error, SPW_CONFIG,
                     "a deployment runs already (pid %ld): spillway down ends it, "
                     "--state-dir keeps several apart",
                     (long)old);
            return spw_cli_fail(command, SPW_CONFIG, &error);
        }
        if (pipe2(ready, O_CLOEXEC))
            return spw_cli_fail(command, SPW_IO, NULL);
        pid_t child = fork();
        if (child > 0) {
            close(ready[1]);
            return await_ready(&config, ready[0], child);
        }
        close(ready[0]);
        starter.ready_pipe = ready[1];
        status = child < 0 ? SPW_IO : detach(&config, &error);
        if (status)
            return spw_cli_fail(command, status, &error);
    }
    spw_cli_catch_signals();
    status = start(&starter, &config, argc, argv, &error);
    if (status)
        return spw_cli_fail(command, status, &error);
    int code = watch(&starter);
    if (config.daemon) {
        char path[SPW_CONFIG_TEXT_MAX + 64];
        state_path(&config, "pid", path, sizeof(path));
        unlink(path);
    }
    return code;
}

static int down(const struct spw_command *command, int argc, char **argv)
{
    struct spw_config config;
    struct spw_error error = {{0}};
    enum spw_status status = spw_config_load(&config, argc, argv, NULL, NULL, &error);
    if (!status)
        status = check_state_dir(&config, false, &error);
    if (status)
        return spw_cli_fail(command, status, &error);
    pid_t pid = read_pid(&config);
    if (pid <= 1 || kill(pid, SIGTERM)) {
        spw_fail(&error, SPW_NOT_FOUND, "no deployment of `spillway up --daemon` runs here");
        return spw_cli_fail(command, SPW_NOT_FOUND, &error);
    }
    for (int i = 0; i < DOWN_WAIT_SECONDS * 20; i++) {
        if (kill(pid, 0))
            return SPW_EXIT_OK;
        usleep(50000);
    }
    spw_fail(&error, SPW_TIMEOUT, "pid %ld has not ended in %d s", (long)pid, DOWN_WAIT_SECONDS);
    return spw_cli_fail(command, SPW_TIMEOUT, &error);
}

const struct spw_command spw_cli_up = {
    .name = "up",
    .brief = "start all ranks and serve",
    .usage = "--model DIR [FLAGS]",
    .text = "Computes how many ranks the layout needs, starts them with mpirun (inside a Slurm "
            "allocation\n"
            "with srun), prints one line `ready http=... grpc=...` when they serve, and ends them "
            "all on\n"
            "Ctrl-C or SIGTERM after a drain. Exit codes: 0 ok, 2 usage, 3 config, 4 peer lost, 5 "
            "device.\n\n"
            "examples:\n"
            "  spillway up --model ./llama --tensor 2 --pipeline 2\n"
            "  spillway up --site cluster.yaml --dry-run\n"
            "  spillway up --model ./llama --daemon && spillway status && spillway down\n",
    .config_flags = true,
    .words = "",
    .run = up,
};

const struct spw_command spw_cli_down = {
    .name = "down",
    .brief = "end a deployment that `up --daemon` started",
    .usage = "[--state-dir DIR]",
    .text = "Drains and ends it; returns when it is gone.\n\n"
            "example:\n  spillway down\n",
    .words = "--state-dir",
    .run = down,
};
