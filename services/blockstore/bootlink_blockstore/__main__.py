from bootlink_blockstore import SERVICE
from bootlink_blockstore.memory import bound_heap
from bootlink_runtime import main

if __name__ == "__main__":
    bound_heap()
    main(SERVICE)
