# Raises its own limits.
import resource
from target import attempt, broken

for name in ["AS", "CPU", "FSIZE", "NPROC", "NOFILE", "CORE", "STACK"]:
    limit = getattr(resource, f"RLIMIT_{name}")
    soft, hard = resource.getrlimit(limit)
    if name != "NPROC" and hard == resource.RLIM_INFINITY:
        broken(f"no limit of {name}")
    if hard != resource.RLIM_INFINITY:
        attempt(f"a higher limit of {name}", resource.setrlimit, limit, (hard + 1, hard + 1))
