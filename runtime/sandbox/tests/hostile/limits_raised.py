# Raises its own limits, and lowers that of processor time: the kernel would end it as something outside could.
import resource
from target import attempt, broken

for name in ["AS", "CPU", "FSIZE", "NPROC", "NOFILE", "CORE", "STACK"]:
    limit = getattr(resource, f"RLIMIT_{name}")
    soft, hard = resource.getrlimit(limit)
    if name != "NPROC" and hard == resource.RLIM_INFINITY:
        broken(f"no limit of {name}")
    if hard != resource.RLIM_INFINITY:
        attempt(f"a higher limit of {name}", resource.setrlimit, limit, (hard + 1, hard + 1))

soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
attempt("a lower limit of processor time", resource.setrlimit, resource.RLIMIT_CPU, (1, 1 if hard < 0 else min(hard, 1)))
