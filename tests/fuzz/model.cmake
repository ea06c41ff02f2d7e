# Fuzz targets of runtime/model: settings and weight files.
if(TARGET spw_model)
    spw_add_fuzz(safetensors fuzz_safetensors.c spw_model)
    spw_add_fuzz(config_json fuzz_config_json.c spw_model)
endif()
