# KV blocks beside the device: the store, its file, and the loop's side.
if(TARGET spw_kv)
    foreach(name kv_store kv_disk)
        spw_add_test(test_runtime_${name} SOURCES test_${name}.c LIBS spw_kv)
        target_link_options(test_runtime_${name} PRIVATE -Wl,--wrap=spw_checksum64)
    endforeach()
endif()
if(TARGET spw_runtime)
    # the test plays the scheduler's part in transfers
    spw_add_test(test_runtime_loop_kv SOURCES test_loop_kv.c loop_fixture.c LIBS spw_runtime)
    target_link_options(test_runtime_loop_kv PRIVATE -Wl,--wrap=spw_sched_transfer_next
        -Wl,--wrap=spw_sched_transfer_done -Wl,--wrap=spw_sched_disk_found
        -Wl,--wrap=spw_sched_save)
    spw_add_test(test_runtime_wire_kv SOURCES test_wire_kv.c LIBS spw_runtime)
    spw_add_test(test_runtime_worker_kv SOURCES test_worker_kv.c LIBS spw_runtime)
endif()
