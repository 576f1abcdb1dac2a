// The part that C understands.
#include <cuda_runtime_api.h>
