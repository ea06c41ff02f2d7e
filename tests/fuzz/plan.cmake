# Cluster descriptions of the planner.
if(TARGET spw_plan)
    spw_add_fuzz(cluster ${CMAKE_CURRENT_LIST_DIR}/fuzz_cluster.c spw_plan)
endif()
