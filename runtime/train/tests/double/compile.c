// Compiles a source with NVRTC or hipRTC, as the worker does: LIBRARY PREFIX SOURCE OPTION… Prints the size of the code.

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static void* library;
static const char* prefix;

static void* function(const char* name) {
  char text[100];
  snprintf(text, sizeof text, "%s%s", prefix, name);
  void* found = dlsym(library, text);
  if (!found) {
    fprintf(stderr, "%s is missing\n", text);
    exit(1);
  }
  return found;
}

int main(int count, char** arguments) {
  if (count < 4) return 2;
  library = dlopen(arguments[1], RTLD_NOW);
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  prefix = arguments[2];
  FILE* file = fopen(arguments[3], "rb");
  if (!file) return 1;
  char* source = calloc(1, 1 << 20);
  if (!source || fread(source, 1, (1 << 20) - 1, file) == 0) return 1;
  int (*create)(void**, const char*, const char*, int, const char* const*, const char* const*) = function("CreateProgram");
  int (*compile)(void*, int, char**) = function("CompileProgram");
  int (*log_size)(void*, size_t*) = function("GetProgramLogSize");
  int (*get_log)(void*, char*) = function("GetProgramLog");
  int (*code_size)(void*, size_t*) = function(prefix[0] == 'n' ? "GetCUBINSize" : "GetCodeSize");
  void* program;
  if (create(&program, source, "kernels.cu", 0, NULL, NULL)) return 1;
  const int status = compile(program, count - 4, arguments + 4);
  size_t size = 0;
  log_size(program, &size);
  char* log = calloc(1, size + 1);
  get_log(program, log);
  fputs(log, stderr);
  if (status || code_size(program, &size)) return 1;
  printf("%zu\n", size);
  return 0;
}
