# KV blocks beside the device: the store, its file, and the loop's side.
if(TARGET spw_kv)
    foreach(name kv_store kv_disk)
        spw_add_test(test_runtime_${name} SOURCES test_${name}.c LIBS spw_kv)
        target_link_options(test_runtime_${name} PRIVATE -Wl,--wrap=spw_checksum64)
    endforeach()
endif()
