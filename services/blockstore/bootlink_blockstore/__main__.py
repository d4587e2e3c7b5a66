from bootlink_blockstore import SERVICE
from bootlink_runtime import main

if __name__ == "__main__":
    main(SERVICE)
