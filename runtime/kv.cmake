# KV blocks beside the device: host memory, disk, and the thread that copies.
spw_library(spw_kv SOURCES kv_block.c kv_disk.c kv_store.c LIBS spw_base)
