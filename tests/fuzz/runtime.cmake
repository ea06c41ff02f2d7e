# Fuzz targets of runtime: the site file and the messages between ranks.
if(TARGET spw_runtime)
    spw_add_fuzz(site_file fuzz_site_file.c spw_runtime)
    spw_add_fuzz(wire fuzz_wire.c spw_runtime)
endif()
# ... and a file of KV blocks.
if(TARGET spw_kv)
    spw_add_fuzz(kv_file ${CMAKE_CURRENT_LIST_DIR}/fuzz_kv_file.c spw_kv)
endif()
