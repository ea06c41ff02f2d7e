/* Fuzz target: site files. What is taken can be checked, printed and digested; what is refused says
 * why.
 */
#include "runtime/config.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct spw_config config;
    struct spw_error error = {{0}};
    char text[1024];
    spw_config_defaults(&config);
    enum spw_status status =
        spw_config_parse(&config, "site.yaml", (const char *)data, bytes, &error);
    assert(strnlen(error.text, sizeof(error.text)) < sizeof(error.text));
    assert((status == SPW_OK) == (error.text[0] == '\0'));
    assert(config.site[0] == '\0' && !config.dry_run && !config.daemon);
    if (status)
        return 0;
    spw_config_agreed_text(&config, text, sizeof(text));
    status = spw_config_check(&config, &error);
    assert((status == SPW_OK) == (error.text[0] == '\0'));
    return 0;
}
