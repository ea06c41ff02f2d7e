# What a review of starts and commands found.
if(TARGET spw_runtime)
    spw_add_test(test_runtime_review_join SOURCES test_review_join.c LIBS spw_runtime)
    spw_add_test(test_runtime_review_progress SOURCES test_review_progress.c loop_fixture.c LIBS spw_runtime)
endif()
if(TARGET spillway)
    spw_add_test(test_runtime_review_commands SOURCES test_review_commands.c LIBS spw_base
        DEFS SPW_EXECUTABLE="$<TARGET_FILE:spillway>")
    add_dependencies(test_runtime_review_commands spillway)
endif()
