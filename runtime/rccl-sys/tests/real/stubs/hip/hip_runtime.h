// The part that C understands.
#include <hip/hip_runtime_api.h>
